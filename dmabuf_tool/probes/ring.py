# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF ring buffers read through mmap and numpy: a whole window at once, no callback an event.

Layout (Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c): a consumer page, a producer page,
then the data, twice in a row, of which we map the first: the second would be counted as memory
once more, and what goes on at the start is joined by a copy. Each record has an 8-byte header, a
32-bit length with a busy and a discard bit, and is padded to 8 bytes.

Memory order: the producer publishes a length with a full barrier; what is read after a length
must not be read before it. x86 keeps loads in order by itself. Elsewhere a lock is let go and
taken again: a release followed by an acquire, which nothing passes.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.schema import EVENT, SEGMENT, TABLE, Events

_BUSY: Final = np.uint32(1 << 31)
_DISCARD: Final = np.uint32(1 << 30)
_HEADER: Final = 8

RECORD: Final = np.dtype([("length", "<u4"), ("page", "<u4"), ("event", EVENT)])
"""An event as it lies in the ring: 120 bytes."""

_CHUNK_HEADER: Final = 16  # struct chunk_header


class _Fence:
    """A full memory barrier where the processor needs one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._ordered = os.uname().machine in ("x86_64", "i686")

    def __call__(self) -> None:
        if not self._ordered:
            self._lock.release()
            self._lock.acquire()


class Ring:
    """One ring buffer, mapped. `size` in bytes is the map's max_entries."""

    def __init__(self, fd: int, size: int) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        self._mask = size - 1
        self._consumer_map = mmap.mmap(
            fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._producer_map = mmap.mmap(
            fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = np.frombuffer(self._consumer_map, np.uint64, 1)
        self._producer = np.frombuffer(self._producer_map, np.uint64, 1)
        self._data: NDArray[np.uint8] = np.frombuffer(self._producer_map, np.uint8, offset=page)
        self.size = size
        self.fence = _Fence()

    def window(self) -> tuple[int, int]:
        """Where the unread bytes start in the ring, and how many there are."""
        consumed = int(self._consumer[0])
        produced = int(self._producer[0])
        self.fence()
        return consumed & self._mask, produced - consumed

    def bytes(self, start: int, count: int) -> NDArray[np.uint8]:
        """The bytes from `start` on as they are now: a copy where they go round the end."""
        rest = start + count - self.size
        if rest <= 0:
            return self._data[start : start + count]
        return np.concatenate((self._data[start:], self._data[:rest]))

    def release(self, count: int) -> None:
        """Give `count` bytes back to the producers; all reads of them are done."""
        self.fence()
        self._consumer[0] += np.uint64(count)

    def close(self) -> None:
        """Unmap; arrays that were handed out are copies and stay."""
        del self._consumer, self._producer, self._data
        self._consumer_map.close()
        self._producer_map.close()


class EventRing(Ring):
    """The ring of fixed-size events."""

    def read(self) -> Events:
        """All finished events, copied out in ring order, shape (n,)."""
        start, available = self.window()
        count = available // RECORD.itemsize
        if not count:
            return np.empty(0, EVENT)
        records = self.bytes(start, count * RECORD.itemsize).view(RECORD)
        unfinished = np.flatnonzero(records["length"] & _BUSY)
        if len(unfinished):
            count = int(unfinished[0])
            if not count:
                return np.empty(0, EVENT)
        self.fence()
        # As 64-bit words: a strided copy of structured records is seven times slower.
        window = self.bytes(start, count * RECORD.itemsize)
        words = window.view(np.uint64).reshape(count, -1)[:, _HEADER // 8 :]
        events: Events = words.copy().view(EVENT).reshape(count)
        self.release(count * RECORD.itemsize)
        return events


class ChunkRing(Ring):
    """The ring of scatterlist chunks, whose records differ in length."""

    def read(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """All finished chunks: a TABLE array (n,) and the raw entries, uint64 (m, 4).

        An entry is a struct scatterlist as the kernel has it: page_link still is a pointer.
        """
        start, available = self.window()
        if not available:
            return np.empty(0, TABLE), np.empty((0, 4), np.uint64)
        lengths = self.bytes(start, available).view(np.uint32)[::2]
        places, taken = self._walk(lengths, available)
        self.fence()
        words = self.bytes(start, taken).copy().view(np.uint64)
        self.release(taken)
        return _split(words, np.array(places, np.int64))

    @staticmethod
    def _walk(lengths: NDArray[np.uint32], available: int) -> tuple[list[int], int]:
        """Where finished chunks are, in 8-byte words, and the bytes they take.

        The only step that goes record by record: where one ends is only known from its length.
        """
        places = []
        at = 0
        end = available // 8
        busy, discard = int(_BUSY), int(_DISCARD)
        item = lengths.item
        while at < end:
            length = item(at)
            if length & busy:
                break
            if not length & discard:
                places.append(at + 1)
            at += ((length & ~discard) + 15) // 8
        return places, at * 8


def _split(
    words: NDArray[np.uint64], places: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.uint64]]:
    """Chunk headers and entries out of a window of 64-bit words."""
    tables = np.zeros(len(places), TABLE)
    tables["mapping"] = words[places] & np.uint64(0xFFFFFFFF)
    tables["first"] = words[places] >> np.uint64(32)
    tables["count"] = words[places + 1] & np.uint64(0xFFFFFFFF)
    tables["total"] = words[places + 1] >> np.uint64(32)
    counts = tables["count"].astype(np.int64)
    ends = np.cumsum(counts)
    tables["offset"] = ends - counts
    # Word index of every entry: its chunk's first word plus four for each entry before it.
    first = np.repeat(places + _CHUNK_HEADER // 8 - 4 * (ends - counts), counts)
    index = first + 4 * np.arange(int(ends[-1]) if len(ends) else 0)
    return tables, words[index[:, None] + np.arange(4)]


assert SEGMENT.itemsize == 32
