# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest for each kernel plays all runs (tests/lab/runs); the tests judge what it left.

Guests run two at a time, as there are processors: emulation keeps one busy. A guest whose
emulated kernel panicked (QEMU translates code that the kernel patches; under load it can run a
stale translation) is run again, and the summary says so. Nothing else is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).parent
sys.path[:0] = [str(LAB), str(LAB.parents[1])]

from matrix import KERNELS, runs_of  # noqa: E402 (the path is set above)

ATTEMPTS = 3
"""Of a guest whose kernel panics each time."""
LAB_FAILED = 125
# All memory below 4 GiB: there, a scattered buffer fails for contiguity and for nothing else.
MEMORY_MB = 2048
TIMEOUT_S = 3000
"""For a guest that hangs: many times what it takes."""


@dataclass(frozen=True)
class Guest:
    """A guest that has ended, and what it left in its share."""

    kernel: str
    share: Path
    status: int
    output: str

    def __getitem__(self, scenario: str) -> dict[str, Any]:
        """What a scenario returned; it must have run to its end."""
        path = self.share / f"{scenario}.json"
        assert path.exists(), f"{self.kernel}: {scenario} did not run:\n{self.output[-4000:]}"
        result: dict[str, Any] = json.loads(path.read_text())
        assert "error" not in result, f"{self.kernel} {scenario}:\n{result['error']}"
        return result

    def json(self, name: str) -> Any:
        """A JSON file of the share; of several lines, the last."""
        return json.loads((self.share / name).read_text().splitlines()[-1])

    def capture(self, name: str) -> Path:
        """A capture of the share."""
        return self.share / f"{name}.dmabuf"

    def times(self) -> str:
        """A line with each run's seconds, of the clock and of the guest's processors."""
        file = self.share / "times"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        spent = [(name, float(clock), float(worked)) for name, clock, worked in lines]
        spent.sort(key=lambda one: -one[1])
        clock, worked = sum(one[1] for one in spent), sum(one[2] for one in spent)
        each = ", ".join(f"{name} {clock:.0f}/{worked:.0f}" for name, clock, worked in spent)
        return f"{self.kernel}: {clock:.0f} s, {worked:.0f} of processors' time: {each}"


_panics: list[str] = []
_ended: list[Guest] = []


def _boot(kernel: str, share: Path) -> Guest:
    command = [
        *(str(LAB / "run"), "--kernel", kernel, "--memory", str(MEMORY_MB)),
        *("--share", str(share), "--timeout", str(TIMEOUT_S)),
        *("--", "python3", "tests/lab/runs/main.py", "--rest", *runs_of(kernel)),
    ]
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != LAB_FAILED or "Kernel panic" not in done.stdout:
            break
        _panics.append(f"{kernel}: the guest's kernel panicked:\n{done.stdout}")
    guest = Guest(kernel, share, done.returncode, done.stdout)
    _ended.append(guest)
    return guest


@pytest.fixture(scope="session")
def guests(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Guest]]:
    """Guests by kernel. Those that the chosen tests need are all started at once."""
    needed = {
        item.callspec.params["guest"]
        for item in request.session.items
        if hasattr(item, "callspec") and "guest" in item.callspec.params
    }
    pool = ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1))
    running: dict[str, Future[Guest]] = {
        kernel: pool.submit(_boot, kernel, tmp_path_factory.mktemp(kernel))
        for kernel in KERNELS
        if kernel in needed
    }
    yield lambda kernel: running[kernel].result()
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session", params=KERNELS)
def guest(request: pytest.FixtureRequest, guests: Callable[[str], Guest]) -> Guest:
    """The guest of one kernel, after its runs."""
    return guests(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the lab."""
    for item in items:
        if LAB in item.path.parents:
            item.add_marker(pytest.mark.lab)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What each guest's time went to; and loudly when one had to be run again."""
    for guest in _ended:
        terminalreporter.write_line(guest.times())
    for panic in _panics:
        terminalreporter.section("GUEST KERNEL PANIC, RUN AGAIN", red=True)
        terminalreporter.write_line(panic)
