# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload says of itself: counts per operation, what was absent, what went wrong.

The last line of every workload's output is this account as JSON; its exit status is 0 when
everything went as expected, else 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any


class Account:
    """Counts operations and collects surprises."""

    def __init__(self, workload: str) -> None:
        self.workload = workload
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.absent: list[str] = []
        self.unexpected: list[str] = []
        self.facts: dict[str, Any] = {}

    def did(self, what: str, times: int = 1) -> None:
        self.done[what] += times

    def refusal(self, what: str, error: OSError) -> None:
        """An expected failure, counted with its errno's name."""
        self.refused[f"{what}: {os.strerror(error.errno or 0)} ({error.errno})"] += 1

    def missing(self, what: str) -> None:
        """Something this kernel does not have; the rest is done all the same."""
        if what not in self.absent:
            self.absent.append(what)
            print(f"{self.workload}: absent here: {what}", flush=True)

    def surprise(self, what: str) -> None:
        self.unexpected.append(what)
        print(f"{self.workload}: unexpected: {what}", file=sys.stderr, flush=True)

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "kernel": os.uname().release,
            "operations": dict(sorted(self.done.items())),
            "refused": dict(sorted(self.refused.items())),
            "absent": self.absent,
            "unexpected": self.unexpected,
            **self.facts,
        }

    def finish(self) -> int:
        """Prints the account; the exit status."""
        sys.stdout.flush()
        print(json.dumps(self.document()), flush=True)
        return 1 if self.unexpected else 0


def modprobe(module: str, *params: str) -> bool:
    """Loads a module of the kernel; False where there is none."""
    done = subprocess.run(["modprobe", module, *params], capture_output=True, check=False)
    return done.returncode == 0
