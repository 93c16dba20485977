#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two vivids: one captures into buffers that the other exports (v4l2-ctl --stream-dmabuf)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import vivid
from report import Account


def stream(account: Account, nodes: list[Path], frames: int) -> None:
    """Streams so many frames; what v4l2-ctl says when it fails is the surprise."""
    command = [
        *("v4l2-ctl", "-d", str(nodes[0]), "--stream-dmabuf", f"--stream-count={frames}"),
        *("--export-device", str(nodes[1])),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    shown = done.stderr + done.stdout
    if done.returncode or "failed" in shown:
        account.surprise(f"v4l2-ctl: exit {done.returncode}: {shown.strip()[:300]}")
    account.did("frame", frames)
    account.facts["v4l2_ctl"] = shown.strip()[-200:]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--frames", type=int, default=100)
    p.add_argument("--vmalloc", action="store_true", help="not dma-contig")
    args = p.parse_args()
    account = Account("v4l2_stream")
    nodes = vivid.load(contiguous=not args.vmalloc)
    if len(nodes) < 2:
        account.missing("vivid")
        return account.finish()
    stream(account, nodes, args.frames)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
