# SPDX-License-Identifier: GPL-2.0-or-later
"""The ranges of address spaces that are mapped now: disjoint, by address, cut as unmaps cut.

All spaces' ranges are rows of one RangeStore; each space has its own in the order of addresses, as
two arrays. A batch goes in or out at once; a single range moves 16 bytes for each one behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.store import Index, Rows, join, put

RANGE: Final = np.dtype(
    [
        ("context", "<u4"),
        ("start", "<u8"),
        ("last", "<u8"),  # its last byte: an end may be 2**64
        ("buffer", "<u4"),
        ("attachment", "<u4"),
        ("mapping", "<u4"),
        ("offset", "<u8"),
        ("source", "u1"),
        ("device", "<u4"),
        ("tgid", "<u4"),
        ("ts_ns", "<u8"),
        ("seq", "<u8"),
    ]
)
"""A `Range` as a row, its fields in the same order."""
_FIRST_ROWS: Final = 64


@dataclass(slots=True, eq=False)
class Range:
    """A stretch of a buffer in a context's address space. Bytes; ends are exclusive.

    Attributes:
        context: id of the address space.
        start, end: addresses in it.
        buffer, attachment, mapping: what is mapped there; 0 where it is not known.
        offset: of `start` in the buffer.
        source: index into `matching.SOURCES`.
        device: of the mapping.
        tgid, ts_ns, seq: who mapped it and when.
    """

    context: int
    start: int
    end: int
    buffer: int
    attachment: int
    mapping: int
    offset: int
    source: int
    device: int
    tgid: int
    ts_ns: int
    seq: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    def part(self, start: int, end: int) -> Range:
        """What lies between two addresses within it."""
        if start == self.start and end == self.end:
            return self
        return replace(self, start=start, end=end, offset=self.offset + start - self.start)

    def follows(self, other: Range) -> bool:
        """Whether it goes on where the other ends, in the space and in the buffer."""
        return (
            self.start == other.end
            and self.mapping == other.mapping
            and self.buffer == other.buffer
            and self.attachment == other.attachment
            and self.source == other.source
            and self.offset == other.offset + other.end - other.start
        )


def range_of(row: tuple[Any, ...]) -> Range:
    """The Range of a row's values."""
    context, start, last, *rest = row
    return Range(context, start, last + 1, *rest)


class RangeStore:
    """The rows of all ranges, by slot; a slot is used again once its range is gone."""

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(_FIRST_ROWS, RANGE)
        self._alive = np.zeros(_FIRST_ROWS, np.bool_)
        self._free: Index = np.arange(_FIRST_ROWS)[::-1].copy()
        self._unused = _FIRST_ROWS

    def __len__(self) -> int:
        return len(self.rows) - self._unused

    def put(self, rows: Rows) -> Index:
        """Store rows; their slots."""
        if self._unused < len(rows):
            self._grow(len(rows) - self._unused)
        self._unused -= len(rows)
        slots = self._free[self._unused : self._unused + len(rows)].copy()
        put(self.rows, slots, rows)
        self._alive[slots] = True
        return slots

    def drop(self, slots: Index) -> None:
        """Forget rows."""
        self._alive[slots] = False
        self._free[self._unused : self._unused + len(slots)] = slots
        self._unused += len(slots)

    def get(self, slot: int) -> Range:
        """One range."""
        return range_of(self.rows[slot].item())

    def of_mapping(self, mapping: int) -> list[Range]:
        """The ranges that target a mapping; looks at all."""
        chosen = np.flatnonzero(self._alive & (self.rows["mapping"] == mapping))
        return [range_of(row) for row in self.rows.take(chosen).tolist()]

    def _grow(self, missing: int) -> None:
        size = len(self.rows)
        more = max(size, missing)
        self.rows = join([self.rows, np.zeros(more, RANGE)])
        self._alive = np.concatenate([self._alive, np.zeros(more, np.bool_)])
        free = np.concatenate([self._free[: self._unused], np.arange(size, size + more)])
        self._free = np.concatenate([free, np.zeros(len(self.rows) - len(free), np.intp)])
        self._unused += more


class Ranges:
    """The ranges of one address space."""

    def __init__(self, store: RangeStore | None = None) -> None:
        self.store = store if store is not None else RangeStore()
        self._starts: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._slots: Index = np.empty(0, np.intp)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Range]:
        """By address."""
        return map(range_of, self.rows.tolist())

    @property
    def rows(self) -> Rows:
        """A copy of the rows, by address."""
        return self.store.rows.take(self._slots)

    def merged(self) -> Iterator[Range]:
        """By address, neighbours that go on in the buffer as one."""
        last: Range | None = None
        for one in self:
            if last is not None and one.follows(last):
                last = replace(last, end=one.end)
                continue
            if last is not None:
                yield last
            last = one
        if last is not None:
            yield last

    def at(self, address: int) -> Range | None:
        """The range that holds an address."""
        return self.first(address, address + 1)

    def first(self, start: int, end: int) -> Range | None:
        """The lowest range that is mapped between two addresses."""
        low, high = self._between(start, end)
        return self.store.get(int(self._slots[low])) if low < high else None

    def meets(self, start: int, end: int) -> bool:
        """Whether anything is mapped between two addresses."""
        low, high = self._between(start, end)
        return low < high

    def overlaps(
        self, starts: NDArray[np.uint64], lasts: NDArray[np.uint64]
    ) -> tuple[Index, Index]:
        """Of n questions (first and last byte) the positions low..high (exclusive) that meet."""
        ends = self.store.rows["last"][self._slots]
        low = np.searchsorted(ends, starts, side="left")
        return low, np.searchsorted(self._starts, lasts, side="right")

    def add(self, fresh: Range) -> int:
        """Add a range where nothing is mapped (cut first); its slot."""
        row = np.zeros(1, RANGE)
        row[0] = (
            fresh.context, fresh.start, fresh.end - 1, fresh.buffer, fresh.attachment,
            fresh.mapping, fresh.offset, fresh.source, fresh.device, fresh.tgid, fresh.ts_ns,
            fresh.seq,
        )  # fmt: skip
        return int(self.insert(row)[0])

    def insert(self, rows: Rows) -> Index:
        """Add rows, by address, where nothing is mapped; their slots."""
        slots = self.store.put(rows)
        starts = rows["start"]
        place = np.searchsorted(self._starts, starts)
        self._starts = np.insert(self._starts, place, starts)
        self._slots = np.insert(self._slots, place, slots)
        return slots

    def remove(self, positions: Index) -> None:
        """Take out the ranges at positions that `overlaps` gave; no position twice."""
        self.store.drop(self._slots[positions])
        self._starts = np.delete(self._starts, positions)
        self._slots = np.delete(self._slots, positions)

    def extend(self, slot: int, end: int) -> None:
        """Let a range of this space reach further, to where nothing is mapped."""
        self.store.rows["last"][slot] = end - 1

    def cut(self, start: int, end: int) -> list[tuple[Range, Range, list[Range]]]:
        """Take start..end out.

        Returns for each range met: the range as it was, the part that went, and what is left of
        it, which is in the space again.
        """
        first, behind = self._between(start, end)
        if first >= behind:
            return []
        met = self.store.rows.take(self._slots[first:behind]).tolist()
        self.remove(np.arange(first, behind))
        result = []
        for old in map(range_of, met):
            low, high = max(start, old.start), min(end, old.end)
            rest = []
            if old.start < low:
                rest.append(old.part(old.start, low))
            if high < old.end:
                rest.append(old.part(high, old.end))
            for one in rest:
                self.add(one)
            result.append((old, old.part(low, high), rest))
        return result

    def _between(self, start: int, end: int) -> tuple[int, int]:
        """Positions low..high (exclusive) of what is mapped between two addresses."""
        if end <= start or start >> 64 or not len(self._slots):
            return 0, 0
        end = min(end, 1 << 64)
        low = int(self._starts.searchsorted(np.uint64(start), side="right"))
        if low and int(self.store.rows["last"][self._slots[low - 1]]) >= start:
            low -= 1
        return low, int(self._starts.searchsorted(np.uint64(end - 1), side="right"))
