# SPDX-License-Identifier: GPL-2.0-or-later
"""Random legal operations under a trace, counted by the test driver's log and by ftrace as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import SHARE, Result, tool, workload

TRACING = Path("/sys/kernel/tracing")
OPERATIONS = 10_500  # as the workload counts; the log has a line for most of them

# What ftrace counts, by the name of the event it stands for.
FUNCTIONS = {
    "export": "dma_buf_export",
    "release": "dma_buf_release",
    "attach": "dma_buf_dynamic_attach",
    "detach": "dma_buf_detach",
    "map": "dma_buf_map_attachment",
    "unmap": "dma_buf_unmap_attachment",
    "pin": "dma_buf_pin",
    "unpin": "dma_buf_unpin",
    "cpu-begin": "dma_buf_begin_cpu_access",
    "cpu-end": "dma_buf_end_cpu_access",
}


def truth() -> Result:
    """Over 10,000 operations of two processes; the capture goes to the share, and the log."""
    return tool(
        *("trace", "-f", "-o", str(SHARE / "truth.dmabuf"), "--"),
        *(sys.executable, __file__, str(OPERATIONS)),
    )


def count_while(argv: list[str]) -> int:
    """Run a command while ftrace counts; returns its status. The counts go to the share."""
    for name, function in FUNCTIONS.items():
        kprobe(f"p:count/{name.replace('-', '_')} {function}")
    enable = TRACING / "events/count/enable"
    enable.write_text("1")
    try:
        status = subprocess.run(argv, check=False).returncode
    finally:
        enable.write_text("0")
    # kprobe_profile: name, hits, misses.
    profile = [line.split() for line in (TRACING / "kprobe_profile").read_text().splitlines()]
    for name in FUNCTIONS:
        kprobe(f"-:count/{name.replace('-', '_')}")
    counts = {name.replace("_", "-"): int(hits) for name, hits, _ in profile}
    misses = sum(int(missed) for _, _, missed in profile)
    (SHARE / "truth.counts").write_text(json.dumps({"counts": counts, "misses": misses}))
    return status


def kprobe(command: str) -> None:
    """One line for kprobe_events, which cannot be positioned: no Python file."""
    fd = os.open(TRACING / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, command.encode() + b"\n")
    finally:
        os.close(fd)


if __name__ == "__main__":
    log = str(SHARE / "truth.log")
    sys.exit(count_while(workload("random_ops.py", "--operations", sys.argv[1], "--log", log)))
