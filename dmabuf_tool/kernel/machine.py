# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine: host, kernel, boot, clocks. What a capture's header and every JSON document name.

The kernel's build version ("#1 SMP Debian 6.1.192-1 (...)") changes with every build and is what
generated headers are cached by; the release alone does not tell two builds apart. The boot id
(/proc/sys/kernel/random/boot_id) tells whether two captures share inode numbers and clocks.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Machine:
    """Facts that do not change until the next boot (`host` may, but seldom does)."""

    host: str
    kernel: str
    version: str
    arch: str
    boot_id: str
    page_size: int
    cpus: int

    def as_json(self) -> dict[str, Any]:
        """Give the JSON object of the schemas."""
        return asdict(self)


@dataclass(frozen=True)
class Clocks:
    """Add these to a CLOCK_MONOTONIC time to get CLOCK_REALTIME and CLOCK_BOOTTIME; all in ns.

    `error_ns` bounds how wrong `realtime_ns` may be.
    """

    realtime_ns: int
    boottime_ns: int
    error_ns: int


def process_start_ns() -> int:
    """When this process began, CLOCK_MONOTONIC in ns, to 10 ms: field 22 of /proc/self/stat, in
    clock ticks of CLOCK_BOOTTIME (proc(5))."""
    fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    ticks_ns = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return ticks_ns - clocks().boottime_ns


def machine(root: Path = Path("/")) -> Machine:
    """Ask the running kernel who it is."""
    uname = os.uname()
    try:
        boot_id = (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot_id = ""
    return Machine(
        host=uname.nodename,
        kernel=uname.release,
        version=uname.version,
        arch=uname.machine,
        boot_id=boot_id,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        # Configured, not online: a CPU may come online while a trace runs.
        cpus=os.sysconf("SC_NPROCESSORS_CONF"),
    )


def clocks(tries: int = 8) -> Clocks:
    """Measure the distance of the clocks, best of a few tries.

    The probes stamp with bpf_ktime_get_ns(), which is CLOCK_MONOTONIC.
    """
    best: Clocks | None = None
    for _ in range(tries):
        before = time.monotonic_ns()
        real = time.time_ns()
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.monotonic_ns()
        middle = (before + after) // 2
        if best is None or after - before < best.error_ns:
            best = Clocks(real - middle, boot - middle, after - before)
    assert best is not None
    return best
