# SPDX-License-Identifier: GPL-2.0-or-later
"""What a live trace looks at beside its events: exits of processes, and who holds which buffers.

It becomes entries of the capture's inventory (model/inventory.py), so that a report knows it too.
"""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet
from typing import Any, Final

from dmabuf_tool.kernel import fdinfo, procevents
from dmabuf_tool.kernel.watcher import Watcher

_HOLDERS_EVERY_S: Final = 10.0


class Surroundings:
    """Poll `read()`; `close()` ends the watching child. What cannot be watched is left out."""

    def __init__(self) -> None:
        self._processes: Watcher | None
        try:
            self._processes = procevents.watch()
        except OSError:
            self._processes = None
        self._next_holders = time.monotonic() + _HOLDERS_EVERY_S

    def read(self, traced: AbstractSet[int], *, last: bool = False) -> list[dict[str, Any]]:
        """Entries for what was seen since the last call, exits of `traced` processes only.

        Holders are looked up every ten seconds and at the `last` call.
        """
        entries: list[dict[str, Any]] = []
        if self._processes is not None:
            events = procevents.events(self._processes.read())
            exits = [[e.pid, e.time_ns] for e in events if e.kind == "exit" and e.pid in traced]
            if exits:
                entries.append({"process_exits": exits})
        if traced and (last or time.monotonic() >= self._next_holders):
            self._next_holders = time.monotonic() + _HOLDERS_EVERY_S
            entries.append({"holders": _holders()})
        return entries

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
