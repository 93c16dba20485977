# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches and captures for the tests of this directory."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dmabuf_tool import schema
from dmabuf_tool.capture.header import Header
from dmabuf_tool.capture.reader import CaptureReader, open_capture
from dmabuf_tool.capture.writer import CaptureWriter
from dmabuf_tool.schema import Batch, Kind, Losses

HEADER = Header(
    host="lab",
    kernel="7.2.0",
    arch="x86_64",
    boot_id="5f0c",
    start_ns=10**12,
    realtime_offset_ns=17 * 10**17,
    command=["dmabuf-tool", "trace", "-o", "x"],
    plan=[{"hook": "map", "way": "fentry"}],
    devices={"0000:00:05.0": {"driver": "edu"}},
)


NONE_LOST = Losses()


def batch(number: int, segments: int = 3, losses: Losses = NONE_LOST) -> Batch:
    """Two events, one table of `segments` entries in two chunks, one stack."""
    events = np.zeros(2, schema.EVENT)
    events["kind"] = [Kind.EXPORT, Kind.MAP]
    events["ts_ns"] = 10**12 + number
    events["mapping"] = number
    tables = np.zeros(2, schema.TABLE)
    tables["mapping"] = number
    tables["total"] = segments
    tables["count"] = [1, segments - 1]
    tables["first"] = tables["offset"] = [0, 1]
    entries = np.zeros(segments, schema.SEGMENT)
    entries["dma_address"] = number * 1000 + np.arange(segments)
    return Batch(events, tables, entries, {number: (f"f{number}+0x1 [vgem]",)}, losses)


def record(path: Path, batches: list[Batch], *, every: bool = True) -> bytes:
    """Write a capture, a frame a batch with `every`, and give its bytes."""
    with CaptureWriter(path, HEADER, force=True) as writer:
        for one in batches:
            writer.write(one)
            if every:
                writer.flush()
    return path.read_bytes()


def read(path: Path) -> tuple[list[Batch], CaptureReader]:
    """All batches of a capture, and its reader after them."""
    with open_capture(path) as reader:
        return list(reader.batches()), reader


def entries_of(batches: list[Batch]) -> list[tuple[tuple[int, ...], bytes]]:
    """Every entry of every table with its place in the mapping: the same in any cutting."""
    found = []
    for one in batches:
        for mapping, first, count, total, offset in one.tables.tolist():
            for index in range(count):
                entry = one.segments[offset + index].tobytes()
                found.append(((mapping, first + index, total), entry))
    return found


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch that probes could make."""
    count = draw(st.integers(0, 5))
    events = np.frombuffer(
        draw(st.binary(min_size=count * 112, max_size=count * 112)), schema.EVENT
    ).copy()
    kinds = hnp.arrays(np.uint16, count, elements=st.sampled_from([int(kind) for kind in Kind]))
    events["kind"] = draw(kinds)
    segments = np.zeros(draw(st.integers(0, 6)), schema.SEGMENT)
    segments["dma_address"] = draw(hnp.arrays(np.uint64, len(segments)))
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        offset = draw(st.integers(0, len(segments)))
        length = draw(st.integers(0, len(segments) - offset))
        first = draw(st.integers(0, 1000))
        total = first + length + draw(st.integers(0, 5))
        rows.append((draw(st.integers(1, 9)), first, length, total, offset))
    stacks = draw(
        st.dictionaries(
            st.integers(0, 2**31 - 1),
            st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
            max_size=3,
        )
    )
    numbers = st.integers(0, 2**64 - 1)
    losses = draw(st.just(Losses()) | st.builds(Losses, numbers, numbers, numbers, numbers))
    return Batch(events, np.array(rows, schema.TABLE), segments, stacks, losses)
