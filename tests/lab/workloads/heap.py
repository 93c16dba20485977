#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""System heap buffers: allocated, written through the CPU, imported into vgem and virtio-gpu."""

from __future__ import annotations

import argparse
import sys

import pages
import sources
from report import modprobe


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--kib", type=int, default=1024, help="size of a buffer")
    args = p.parse_args()
    modprobe("system_heap")
    return pages.workload("heap", sources.heap, args.rounds, args.kib << 10).finish()


if __name__ == "__main__":
    sys.exit(main())
