# SPDX-License-Identifier: GPL-2.0-or-later
"""Native tests run as root, one after the other on one CPU, with a cache of compiled programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

WAIT_S = 60.0


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """A skipped test would look like a passed one: without root these fail."""
    assert os.geteuid() == 0, "native tests load BPF programs: run them as root"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled programs are shared by the tests, and gone afterwards."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Events are numbered on each CPU: stay on one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition; the kernel frees programs a moment after their last reference."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.01)

    return wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here loads programs."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.native)
