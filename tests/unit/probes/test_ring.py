# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading rings laid out by hand: unfinished and discarded records, the wrap, chunks of any length.

A file stands for the map: a consumer page, a producer page, the data.
"""

from __future__ import annotations

import mmap
import os
import struct

import numpy as np
import pytest

from dmabuf_tool.probes.ring import RECORD, ChunkRing, EventRing

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 4 * PAGE
BUSY, DISCARD = 1 << 31, 1 << 30


class Kernel:
    """The producer's side."""

    def __init__(self, path):
        self._file = open(path, "w+b")  # noqa: SIM115 (lives as long as the mapping)
        self._file.truncate(2 * PAGE + SIZE)
        self.fd = self._file.fileno()
        self._map = mmap.mmap(self.fd, 0)
        self.position = 0

    def record(self, body, bits=0, length=None):
        """Append a record; returns its place."""
        place = self.position
        data = struct.pack("<II", (length or len(body)) | bits, 0) + body
        data += b"\0" * (-len(data) % 8)
        for number, byte in enumerate(data):
            self._map[2 * PAGE + (place + number) % SIZE] = byte
        self.position += len(data)
        self._map[PAGE : PAGE + 8] = struct.pack("<Q", self.position)
        return place

    def finish(self, place, length, bits=0):
        """Set the length of a record that was busy."""
        at = 2 * PAGE + place % SIZE
        self._map[at : at + 4] = struct.pack("<I", length | bits)

    @property
    def consumed(self):
        return struct.unpack("<Q", self._map[:8])[0]


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path / "map")


def event(number):
    return struct.pack("<Q", number) + bytes(RECORD.itemsize - 16)


def numbers(events):
    return events["ts_ns"].tolist()


def test_an_empty_ring(kernel):
    ring = EventRing(kernel.fd, SIZE)
    assert len(ring.read()) == 0
    ring.close()


def test_reading_stops_at_a_record_that_is_not_finished(kernel):
    ring = EventRing(kernel.fd, SIZE)
    kernel.record(event(1))
    busy = kernel.record(event(2), BUSY)
    kernel.record(event(3))
    assert numbers(ring.read()) == [1]
    assert numbers(ring.read()) == []
    assert kernel.consumed == RECORD.itemsize
    kernel.finish(busy, len(event(2)))
    assert numbers(ring.read()) == [2, 3]
    assert kernel.consumed == kernel.position
    ring.close()


def test_events_go_round_the_ring(kernel):
    ring = EventRing(kernel.fd, SIZE)
    room = SIZE // RECORD.itemsize
    sent, seen = 0, []
    while kernel.position < 5 * SIZE:
        for _ in range(room - 7):
            sent += 1
            kernel.record(event(sent))
        seen += numbers(ring.read())
    assert seen == list(range(1, sent + 1))
    ring.close()


def test_what_was_read_is_a_copy(kernel):
    ring = EventRing(kernel.fd, SIZE)
    kernel.record(event(1))
    first = ring.read()
    for number in range(2, SIZE // RECORD.itemsize + 2):
        kernel.record(event(number))
    ring.read()
    assert numbers(first) == [1]
    ring.close()
    assert numbers(first) == [1]


def chunk(mapping, first, addresses, total):
    head = struct.pack("<IIII", mapping, first, len(addresses), total)
    return head + b"".join(struct.pack("<QIIQII", 0, 0, 4096, a, 4096, 0) for a in addresses)


def test_chunks_of_any_length(kernel):
    ring = ChunkRing(kernel.fd, SIZE)
    seen = []
    for round_ in range(20):
        for count in (1, 60, 7, 0):
            kernel.record(chunk(round_, 0, range(round_, round_ + count), count))
        tables, raw = ring.read()
        assert tables["count"].tolist() == [1, 60, 7, 0]
        assert tables["offset"].tolist() == [0, 1, 61, 68]
        assert tables["mapping"].tolist() == [round_] * 4
        seen.append(raw[:, 2].tolist())  # dma_address
    assert kernel.position > 2 * SIZE
    expected = [[*range(r, r + 1), *range(r, r + 60), *range(r, r + 7)] for r in range(20)]
    assert seen == expected
    ring.close()


def test_discarded_and_unfinished_chunks(kernel):
    ring = ChunkRing(kernel.fd, SIZE)
    kernel.record(chunk(1, 0, [10], 1))
    kernel.record(chunk(2, 0, [20, 21], 2), DISCARD)
    kernel.record(chunk(3, 0, [30], 1))
    busy = kernel.record(chunk(4, 0, [40], 1), BUSY)
    kernel.record(chunk(5, 0, [50], 1))
    tables, raw = ring.read()
    assert tables["mapping"].tolist() == [1, 3]
    assert raw[:, 2].tolist() == [10, 30]
    kernel.finish(busy, len(chunk(4, 0, [40], 1)), DISCARD)
    tables, raw = ring.read()
    assert tables["mapping"].tolist() == [5]
    assert np.array_equal(raw[:, 2], [50])
    assert kernel.consumed == kernel.position
    ring.close()
