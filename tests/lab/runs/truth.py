# SPDX-License-Identifier: GPL-2.0-or-later
"""Random legal operations under a trace: of two processes on level 1, then of one on both levels.
The test driver's logs and tables tell of them as well, and ftrace counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import SHARE, Result, lab, tool, workload

TRACING = Path("/sys/kernel/tracing")
# As the workloads count; the logs have a line for most of them.
OPERATIONS = 10_500
OPERATIONS_ON_BOTH_LEVELS = 5000

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
    """Capture, logs, tables and counts go to the share; the last line on stdout is the account of
    the operations on both levels."""
    lab.load_vm()  # before the trace, so that GPU VMs are seen whenever it attaches to modules
    return tool(
        *("trace", "-f", "-o", str(SHARE / "truth.dmabuf"), "--"),
        *(sys.executable, __file__),
    )


def operate() -> int:
    """One workload after the other; the worse of their statuses."""
    level1 = ("--operations", str(OPERATIONS), "--log", str(SHARE / "truth.log"))
    both = ("--log", str(SHARE / "levels.log"), "--tables", str(SHARE / "levels.tables"))
    return max(
        subprocess.run(workload(*command), check=False).returncode
        for command in (
            ("random_ops.py", *level1),
            ("random_levels.py", "--operations", str(OPERATIONS_ON_BOTH_LEVELS), *both),
        )
    )


def count_while(work: Callable[[], int]) -> int:
    """Work while ftrace counts; returns its status. The counts go to the share."""
    for name, function in FUNCTIONS.items():
        kprobe(f"p:count/{name.replace('-', '_')} {function}")
    enable = TRACING / "events/count/enable"
    enable.write_text("1")
    try:
        status = work()
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
    sys.exit(count_while(operate))
