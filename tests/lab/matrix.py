# SPDX-License-Identifier: GPL-2.0-or-later
"""Which run is played on which kernel, as data: for who plays (runs/main.py) and who judges.

What the kernel decides is played on all of them. What the tool decides by itself, once the same
events come (which of them it keeps), is the same on all, and emulated seconds are dear: one kernel
has it. What needs no events of dma-bufs (what it refuses, how it stops, where a capture ends) is
in tests/unit and tests/native.
"""

from __future__ import annotations

from typing import Final

KERNELS: Final = ("7.2", "6.1", "6.12", "arm64")
"""In the order in which they are booted, two at once: those that take longest first."""

RUNS: Final[dict[str, tuple[str, ...]]] = {
    "surroundings": KERNELS,
    "late": KERNELS,  # before anything loads a provider's module
    "truth": KERNELS,
    "preempted": ("7.2",),  # whose code is preemptible
    # By kprobes alone: where there is no provider that works here, and where there is one.
    "reloaded": ("6.1", "arm64"),
    "findings": KERNELS,
    "inspection": KERNELS,
    "filters": ("6.12",),
    # By fprobes alone, which no kernel here chooses for all; for what is rare, 7.2 does.
    "fprobes": ("6.12",),
    "providers": KERNELS,
    "compiled": KERNELS,
}
"""By run, in the order in which they are played."""

NOT_LOADED: Final[dict[str, frozenset[str]]] = {"6.12": frozenset({"amdgpu"})}
"""Modules that stay away though the kernel has them: for each function of a module x86's kernels go
through the module's symbols (test_for_valid_rec(), kernel/trace/ftrace.c), 21 G instructions for
this one. arm64's 6.12 loads the same driver."""


def runs_of(kernel: str) -> list[str]:
    """What is played on a kernel. Of two guests that run at once one waits for late faults first
    and the other in the middle, so that the processors are not idle for both."""
    runs = [run for run, kernels in RUNS.items() if kernel in kernels]
    if KERNELS.index(kernel) % 2:
        runs.sort(key=lambda run: run != "findings")
    return runs
