# SPDX-License-Identifier: GPL-2.0-or-later
"""Which processes hold which buffers, from snapshots of /proc taken while tracing.

A snapshot is {"holders": {"ts_ns", "complete", "buffers": [[ino, [[pid, comm, fds, maps], ...]]]}}
in the inventory of a capture. `complete` says that every process could be read: only then does
"nobody" mean nobody. Buffers are joined by inode number, which is not reused while one lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

SNAPSHOTS: Final = 64
MAX_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a buffer by descriptors or mappings."""

    pid: int
    comm: str
    fds: int
    maps: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Who held what at one moment; inode -> holders."""

    ts_ns: int
    complete: bool
    buffers: Mapping[int, tuple[Holder, ...]]

    def buffers_of(self) -> dict[int, int]:
        """Process -> number of buffers it holds."""
        out: dict[int, int] = {}
        for holders in self.buffers.values():
            for holder in holders:
                out[holder.pid] = out.get(holder.pid, 0) + 1
        return out


class Holders:
    """The newest snapshot whole, and of the last ones how many buffers each process held."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self.history: deque[tuple[int, dict[int, int]]] = deque(maxlen=SNAPSHOTS)
        """Time and buffers held by each process, oldest first."""

    def see(self, snapshot: Snapshot) -> None:
        """Take a snapshot; they come in order of time."""
        if self.latest is not None and snapshot.ts_ns < self.latest.ts_ns:
            return
        self.latest = snapshot
        self.history.append((snapshot.ts_ns, snapshot.buffers_of()))

    def of(self, ino: int) -> tuple[Holder, ...] | None:
        """Who holds a buffer now; None if that is not known."""
        if self.latest is None or not ino:
            return None
        known = self.latest.buffers.get(ino)
        if known is None:
            return () if self.latest.complete else None
        return known

    def series(self, pid: int) -> list[tuple[int, int]]:
        """Time and number of buffers a process held, oldest first."""
        return [(ts_ns, counts.get(pid, 0)) for ts_ns, counts in self.history]


def read_snapshots(inventory: Iterable[Mapping[str, Any]]) -> list[Snapshot]:
    """The snapshots in a capture's inventory; what is not one is left out."""
    return [
        snapshot
        for entry in inventory
        if isinstance(value := entry.get("holders"), dict)
        and (snapshot := _snapshot(value)) is not None
    ]


def _snapshot(value: Mapping[str, Any]) -> Snapshot | None:
    ts_ns, complete, rows = (value.get(key) for key in ("ts_ns", "complete", "buffers"))
    if type(ts_ns) is not int or not isinstance(complete, bool) or not isinstance(rows, list):
        return None
    buffers = {}
    for row in rows[:MAX_ROWS]:
        match row:
            case [int(ino), list(holders)]:
                buffers[ino] = tuple(Holder(*one) for one in holders if _is_holder(one))
            case _:
                return None
    return Snapshot(ts_ns, complete, buffers)


def _is_holder(one: object) -> bool:
    return isinstance(one, list) and [type(item) for item in one] == [int, str, int, int]
