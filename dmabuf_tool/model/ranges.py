# SPDX-License-Identifier: GPL-2.0-or-later
"""The ranges of one address space that are mapped now: disjoint, by address, cut as unmaps cut.

A sorted list in blocks, so that an insertion moves a block's worth of memory and no more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

_BLOCK: Final = 512


@dataclass(slots=True, eq=False)
class Range:
    """A stretch of a buffer in a context's address space. Bytes; ends are exclusive.

    Attributes:
        context: id of the address space.
        start, end: addresses in it.
        buffer, attachment, mapping: what is mapped there; 0 where it is not known.
        offset: of `start` in the buffer.
        source: index into `levels.SOURCES`.
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


class Ranges:
    """The ranges of one address space."""

    def __init__(self) -> None:
        self._blocks: list[list[Range]] = []
        self._starts: list[list[int]] = []
        self._firsts: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Range]:
        """By address."""
        for block in self._blocks:
            yield from block

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
        block, index = self._locate(address)
        if block < len(self._blocks):
            found = self._blocks[block][index]
            if found.start <= address:
                return found
        return None

    def first(self, start: int, end: int) -> Range | None:
        """The lowest range that is mapped between two addresses."""
        block, index = self._locate(start)
        found = self._blocks[block][index] if block < len(self._blocks) else None
        return found if found is not None and found.start < end else None

    def meets(self, start: int, end: int) -> bool:
        """Whether anything is mapped between two addresses."""
        return self.first(start, end) is not None

    def add(self, fresh: Range) -> None:
        """Add a range where nothing is mapped (cut first)."""
        self._count += 1
        if not self._blocks:
            self._blocks, self._starts = [[fresh]], [[fresh.start]]
            self._firsts = [fresh.start]
            return
        number = max(bisect_right(self._firsts, fresh.start) - 1, 0)
        starts, block = self._starts[number], self._blocks[number]
        index = bisect_right(starts, fresh.start)
        starts.insert(index, fresh.start)
        block.insert(index, fresh)
        if not index:
            self._firsts[number] = fresh.start
        if len(block) > 2 * _BLOCK:
            self._blocks[number : number + 1] = [block[:_BLOCK], block[_BLOCK:]]
            self._starts[number : number + 1] = [starts[:_BLOCK], starts[_BLOCK:]]
            self._firsts.insert(number + 1, self._starts[number + 1][0])

    def cut(self, start: int, end: int) -> list[tuple[Range, Range, list[Range]]]:
        """Take start..end out.

        Returns for each range met: the range as it was, the part that went, and what is left of
        it, which is in the space again.
        """
        met = []
        number, index = self._locate(start)
        while number < len(self._blocks):
            block = self._blocks[number]
            stop = index
            while stop < len(block) and block[stop].start < end:
                met.append(block[stop])
                stop += 1
            ended = stop < len(block)
            del block[index:stop], self._starts[number][index:stop]
            self._count -= stop - index
            if block:
                self._firsts[number] = block[0].start
                number += 1
            else:
                del self._blocks[number], self._starts[number], self._firsts[number]
            index = 0
            if ended:
                break
        result = []
        for old in met:
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

    def _locate(self, address: int) -> tuple[int, int]:
        """Where the first range that ends behind an address is; past the end if there is none."""
        number = max(bisect_right(self._firsts, address) - 1, 0)
        if number >= len(self._blocks):
            return number, 0
        block = self._blocks[number]
        index = bisect_right(self._starts[number], address)
        if index and block[index - 1].end > address:
            return number, index - 1
        if index < len(block):
            return number, index
        return number + 1, 0
