# SPDX-License-Identifier: GPL-2.0-or-later
"""What a live trace looks at beside its events: exits, and who holds which buffers.

It becomes entries of the capture's inventory (model/inventory.py), so that a report knows it too.
"""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from dmabuf_tool.kernel import fdinfo, procevents
from dmabuf_tool.kernel.watcher import Watcher

_HOLDERS_EVERY_S: Final = 10.0
_PROC: Final = Path("/proc")


class Surroundings:
    """Poll `read()`; `close()` ends the watching child. What cannot be watched is left out."""

    def __init__(self) -> None:
        self._exits: list[list[int]] = []
        self._gone: set[int] = set()
        """Processes whose exit was told."""
        self._processes: Watcher | None
        try:
            self._processes = procevents.watch()
        except OSError:
            self._processes = None
        self._next_holders = time.monotonic() + _HOLDERS_EVERY_S

    def look(self) -> None:
        """Take exits, before the events that came before them are read: only these say which
        processes are traced, and a process may live shorter than a batch."""
        if self._processes is not None:
            events = procevents.events(self._processes.read())
            self._exits += [[e.pid, e.time_ns] for e in events if e.kind == "exit"]

    def read(self, traced: AbstractSet[int], *, last: bool = False) -> list[dict[str, Any]]:
        """Entries for what was seen up to the last `look`, exits of `traced` processes only.

        Holders are looked up every ten seconds and at the `last` call.
        """
        entries: list[dict[str, Any]] = []
        exits = [one for one in self._exits if one[0] in traced]
        self._exits = []
        self._gone.update(pid for pid, _ in exits)
        exits += self._missing(traced)
        if exits:
            entries.append({"process_exits": exits})
        if traced and (last or time.monotonic() >= self._next_holders):
            self._next_holders = time.monotonic() + _HOLDERS_EVERY_S
            entries.append({"holders": _holders()})
        return entries

    def _missing(self, traced: AbstractSet[int]) -> list[list[int]]:
        """Exits nobody told of, as of now: the child that listens imports pyroute2 first, for
        seconds on a slow machine, and a kernel may have no process connector."""
        now_ns = time.monotonic_ns()
        missing = [pid for pid in traced - self._gone if not (_PROC / str(pid)).exists()]
        self._gone.update(missing)
        return [[pid, now_ns] for pid in missing]

    def close(self) -> None:
        """Stop watching."""
        if self._processes is not None:
            self._processes.close()


def _holders() -> dict[str, Any]:
    """A snapshot of /proc, as model/holders.py reads it."""
    ts_ns = time.monotonic_ns()
    scan = fdinfo.scan()
    buffers: dict[int, list[list[Any]]] = {}
    for process in scan.processes:
        for ino, holding in process.buffers.items():
            row = [process.pid, process.comm, len(holding.fds), holding.maps]
            buffers.setdefault(ino, []).append(row)
    return {
        "ts_ns": ts_ns,
        "complete": scan.complete,
        "buffers": [[ino, rows] for ino, rows in buffers.items()],
    }
