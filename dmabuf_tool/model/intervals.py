# SPDX-License-Identifier: GPL-2.0-or-later
"""Address ranges of level-1 mappings, found by the addresses they hold, many questions at once.

Ranges may overlap (one page in two tables, an IOVA given out again), so they are kept by length
class and each class as a few sorted arrays that grow by a factor (a logarithmic merge): adding n
ranges costs n log n in all, asking costs two binary searches an array. Of a sorted array the
ranges that can reach a question are between the first whose running maximum of ends lies behind
the question's start and the last that starts before its end; within a class that stretch is
short, as no range is longer than the class allows.

A range takes 36 bytes. Addresses are bytes, ends are exclusive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]

CLASSES: Final = (1 << 16, 1 << 22)
"""A range is in the first class whose length in bytes it does not exceed, or in the last."""
_FACTOR: Final = 4
_MOST_PAIRS: Final = 1 << 20
"""Pairs looked at in one go."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Which ranges meet which question, shape (n,) each.

    Attributes:
        asked: index of the question.
        start, end: the range, bytes.
        owner: whose range it is.
        offset: where the range begins in its buffer, bytes.
    """

    asked: NDArray[np.intp]
    start: U64
    end: U64
    owner: U32
    offset: U64

    def __len__(self) -> int:
        return len(self.asked)

    def take(self, chosen: NDArray[Any]) -> Hits:
        """Those of a mask or an index."""
        return Hits(
            self.asked[chosen],
            self.start[chosen],
            self.end[chosen],
            self.owner[chosen],
            self.offset[chosen],
        )


NO_HITS: Final = Hits(
    np.empty(0, np.intp),
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty(0, np.uint32),
    np.empty(0, np.uint64),
)


def join_hits(parts: list[Hits]) -> Hits:
    """All of them, in the order of the parts."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return NO_HITS
    if len(parts) == 1:
        return parts[0]
    names = ("asked", "start", "end", "owner", "offset")
    return Hits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class _Sorted:
    """Ranges by start, and how far those up to each one reach."""

    __slots__ = ("end", "offset", "owner", "reach", "start")

    def __init__(self, start: U64, end: U64, owner: U32, offset: U64) -> None:
        order = np.argsort(start, kind="stable")
        self.start, self.end = start[order], end[order]
        self.owner, self.offset = owner[order], offset[order]
        self.reach: U64 = np.maximum.accumulate(self.end)

    def __len__(self) -> int:
        return len(self.start)

    def find(self, low: U64, high: U64) -> Hits:
        first = np.searchsorted(self.reach, low, side="right")
        count = np.maximum(np.searchsorted(self.start, high, side="left") - first, 0)
        total = int(count.sum())
        if not total:
            return NO_HITS
        if total > _MOST_PAIRS and len(low) > 1:
            half = len(low) // 2
            later = self.find(low[half:], high[half:])
            moved = Hits(later.asked + half, later.start, later.end, later.owner, later.offset)
            return join_hits([self.find(low[:half], high[:half]), moved])
        asked = np.repeat(np.arange(len(low)), count)
        place = np.arange(total) + np.repeat(first - (np.cumsum(count) - count), count)
        met = self.end[place] > low[asked]
        asked, place = asked[met], place[met]
        return Hits(
            asked, self.start[place], self.end[place], self.owner[place], self.offset[place]
        )


class Intervals:
    """The ranges of one address space; sorted when they are asked for, which may be never."""

    def __init__(self) -> None:
        self._classes: list[list[_Sorted]] = [[] for _ in range(len(CLASSES) + 1)]
        self._unsorted: list[tuple[U64, U64, U32, U64]] = []

    def __len__(self) -> int:
        waiting = sum(len(part[0]) for part in self._unsorted)
        return waiting + sum(len(part) for parts in self._classes for part in parts)

    def add(self, start: U64, end: U64, owner: U32, offset: U64) -> None:
        """Add ranges, shape (n,) each; an empty range is never found."""
        if len(start):
            self._unsorted.append((start, end, owner, offset))

    def _sort(self) -> None:
        """Put what was added since the last question in its place."""
        if not self._unsorted:
            return
        parts = zip(*self._unsorted, strict=True)
        start, end, owner, offset = (np.concatenate(one) for one in parts)
        self._unsorted = []
        number = np.searchsorted(np.array(CLASSES, np.uint64), end - start, side="left")
        for index in np.unique(number).tolist():
            mine = number == index
            fresh = _Sorted(start[mine], end[mine], owner[mine], offset[mine])
            self._push(self._classes[index], fresh)

    def find(self, low: U64, high: U64) -> Hits:
        """The ranges that meet low..high (exclusive), for n questions at once."""
        if not len(low):
            return NO_HITS
        self._sort()
        return join_hits([part.find(low, high) for parts in self._classes for part in parts])

    def of(self, owner: int) -> Hits:
        """All ranges of one owner, by start; looks at every range."""
        self._sort()
        found = []
        for parts in self._classes:
            for part in parts:
                at = np.flatnonzero(part.owner == owner)
                found.append(
                    Hits(np.zeros(len(at), np.intp), part.start[at], part.end[at],
                         part.owner[at], part.offset[at])
                )  # fmt: skip
        together = join_hits(found)
        return together.take(np.argsort(together.start, kind="stable"))

    def keep(self, wanted: Callable[[U32], NDArray[np.bool_]]) -> None:
        """Forget the ranges of owners that are not wanted."""
        masks = [wanted(part[2]) for part in self._unsorted]
        self._unsorted = [
            (start[mask], end[mask], owner[mask], offset[mask])
            for mask, (start, end, owner, offset) in zip(masks, self._unsorted, strict=True)
            if bool(mask.any())
        ]
        for index, parts in enumerate(self._classes):
            if not parts:
                continue
            kept = []
            for part in parts:
                mask = wanted(part.owner)
                kept.append((part.start[mask], part.end[mask], part.owner[mask], part.offset[mask]))
            columns = [np.concatenate([one[column] for one in kept]) for column in range(4)]
            self._classes[index] = [_Sorted(*columns)] if len(columns[0]) else []

    @staticmethod
    def _push(parts: list[_Sorted], fresh: _Sorted) -> None:
        """Append, and merge while the part before is not much larger."""
        parts.append(fresh)
        while len(parts) > 1 and len(parts[-2]) <= _FACTOR * len(parts[-1]):
            last, before = parts.pop(), parts.pop()
            names = ("start", "end", "owner", "offset")
            columns = [
                np.concatenate([getattr(before, name), getattr(last, name)]) for name in names
            ]
            del before, last
            parts.append(_Sorted(*columns))
