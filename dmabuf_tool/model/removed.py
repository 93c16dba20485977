# SPDX-License-Identifier: GPL-2.0-or-later
"""The ranges of level 2 that are no more: faults and reports ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.ranges import RANGE, Range, range_of
from dmabuf_tool.model.store import Rows, join, put

REMEMBERED: Final = 1 << 16
"""Ranges kept, the last ones."""

_ENDED: Final[list[tuple[str, str]]] = [
    ("ended_ns", "<u8"),
    ("ended_by", "<u4"),
    ("domain", "<u4"),  # level 1, as it was when level 2 ended: 0 if none translates
    ("address", "<u8"),
    ("size", "<u8"),
    ("entries", "<u4"),
]
LEVEL1: Final = ["space", "address", "size", "entries"]
"""Fields of a SPAN that a REMOVED row ends with."""
REMOVED: Final = np.dtype([*((name, RANGE[name].str) for name in RANGE.names or ()), *_ENDED])
_FIRST_ROWS: Final = 64
_FIELDS: Final = len(RANGE.names or ())


@dataclass(frozen=True, slots=True)
class Removed:
    """A range that was taken out of its context, when and by whom; and the level 1 under it:
    domain (0: none translates), first DMA address, bytes and entries. All 0 where it has none."""

    range: Range
    ts_ns: int
    tgid: int
    domain: int
    address: int
    size: int
    entries: int


class Removals:
    """The last ones; by their time, as far as whole batches were flushed."""

    def __init__(self) -> None:
        self._rows: Rows = np.zeros(_FIRST_ROWS, REMOVED)
        self._next = 0
        self._waiting: list[tuple[Any, ...]] = []
        self._parts: list[Rows] = []
        self.count = 0
        """How many there were since the start, as of the last flush."""

    def add(self, part: Range, ts_ns: int, tgid: int, level1: tuple[int, ...]) -> None:
        """One range; `level1` are the values of LEVEL1."""
        self._waiting.append((
            part.context, part.start, part.end - 1, part.buffer, part.attachment, part.mapping,
            part.offset, part.source, part.device, part.tgid, part.ts_ns, part.seq, ts_ns, tgid,
            *level1,
        ))  # fmt: skip

    def put(self, rows: Rows) -> None:
        """REMOVED rows."""
        self._parts.append(rows)

    def flush(self) -> None:
        """Take in what came, by its time."""
        parts, self._parts = self._parts, []
        if self._waiting:
            parts.append(np.array(self._waiting, REMOVED))
            self._waiting = []
        if not parts:
            return
        rows = join(parts)
        self._put(rows.take(np.argsort(rows["ended_ns"], kind="stable")))

    def rows(self) -> Rows:
        """A copy of those remembered, oldest first."""
        self.flush()
        return self.since(0)

    def holding(self, address: int) -> Rows:
        """A copy of those that had an address, oldest first."""
        self.flush()
        size = len(self._rows)
        rows = self._rows[: min(self.count, size)]
        byte = np.uint64(address)
        place = np.flatnonzero((rows["start"] <= byte) & (byte <= rows["last"]))
        if self.count > size:
            place = place[np.argsort((place - self._next) % size)]
        return rows.take(place)

    def since(self, count: int) -> Rows:
        """What came since there were so many, as far as it is remembered."""
        fresh = min(self.count - count, len(self._rows))
        if self.count <= len(self._rows):
            return self._rows[self.count - fresh : self.count].copy()
        return self._rows.take(np.arange(self._next - fresh, self._next) % len(self._rows))

    def newest(self, most: int) -> Iterator[Removed]:
        """Objects, the last one first."""
        rows = self.rows()[::-1][:most]
        return map(removed_of, rows.tolist())

    def _put(self, rows: Rows) -> None:
        while len(self._rows) < min(self.count + len(rows), REMEMBERED):
            # Until it is full, the rows begin at 0.
            self._rows = join([self._rows, np.zeros(len(self._rows), REMOVED)])
        self.count += len(rows)
        rows = rows[-REMEMBERED:]
        size = len(self._rows)
        place = (self._next + np.arange(len(rows))) % size
        put(self._rows, place, rows)
        self._next = (self._next + len(rows)) % size if size == REMEMBERED else self.count


def removed_of(row: tuple[Any, ...]) -> Removed:
    """The Removed of a row's values."""
    return Removed(range_of(row[:_FIELDS]), *row[_FIELDS:])
