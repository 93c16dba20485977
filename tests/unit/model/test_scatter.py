# SPDX-License-Identifier: GPL-2.0-or-later
"""Scatterlists to rows: against a plain loop over entries, in whatever chunks they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from batches import segments
from hypothesis import given, settings
from hypothesis import strategies as st

from dmabuf_tool.model.scatter import Chunks, summarise
from dmabuf_tool.schema import SEGMENT, SG_DMA_BUS_ADDRESS, TABLE

ENTRY = st.tuples(
    st.integers(0, 40).map(lambda page: page * 4096),
    st.sampled_from((0, 1, 4096, 8192)),
    st.sampled_from((0, 0, 0, SG_DMA_BUS_ADDRESS, 2)),
)
LISTS = st.lists(st.lists(ENTRY, min_size=1, max_size=9), min_size=1, max_size=6)


def slowly(entries: list[tuple[int, int, int]]) -> dict[str, Any]:
    """The same numbers, one entry after the other."""
    out: dict[str, Any] = {
        "entries": len(entries), "total": 0, "longest_entry": 0, "address_bits": 0,
        "length_bits": 0, "crossed_bits": 0, "empty_entries": 0, "dma_flags": 0,
        "lowest": (1 << 64) - 1, "last": 0, "complete": True,
    }  # fmt: skip
    runs: list[list[int]] = []
    for address, length, flags in entries:
        out["total"] += length
        out["longest_entry"] = max(out["longest_entry"], length)
        out["address_bits"] |= address
        out["length_bits"] |= length
        out["dma_flags"] |= flags
        out["empty_entries"] += length == 0
        last = (address + length - 1) % (1 << 64)
        if length:
            out["crossed_bits"] |= address ^ last
        if not flags & SG_DMA_BUS_ADDRESS:
            out["lowest"] = min(out["lowest"], address)
            out["last"] = max(out["last"], last)
        if runs and runs[-1][0] == address:
            runs[-1][0] += length
            runs[-1][1] += length
        else:
            runs.append([address + length, length])
    out["runs"] = len(runs)
    out["longest_run"] = max(run[1] for run in runs)
    out["first_run"] = runs[0][1]
    return out


def chunked(lists: list[list[tuple[int, int, int]]], size: int, order: Any) -> tuple[Any, Any]:
    """Tables and segments with chunks of `size`, in an order."""
    parts = []
    for number, entries in enumerate(lists, 1):
        rows = segments(entries)
        for first in range(0, len(rows), size):
            parts.append((number, first, len(rows), rows[first : first + size]))
    order.shuffle(parts)
    tables, offset = [], 0
    for number, first, total, rows in parts:
        tables.append((number, first, len(rows), total, offset))
        offset += len(rows)
    return np.array(tables, TABLE), np.concatenate([rows for *_, rows in parts])


@settings(deadline=None)
@given(lists=LISTS, size=st.integers(1, 9), order=st.randoms())
def test_like_a_loop(lists: list[list[tuple[int, int, int]]], size: int, order: Any) -> None:
    tables, rows = chunked(lists, size, order)
    ids = np.arange(1, len(lists) + 1, dtype=np.uint32)
    order.shuffle(ids)
    nents = np.array([len(lists[number - 1]) for number in ids], np.uint32)
    summary = summarise(tables, rows, ids, nents)
    for number, row in zip(ids, summary, strict=True):
        expected = slowly(lists[number - 1])
        if expected["empty_entries"] and expected["last"] == (1 << 64) - 1:
            continue
        assert {name: row[name].item() for name in expected} == expected


def test_entries_past_nents_and_lost_chunks() -> None:
    rows = segments([(0x1000, 4096), (0x2000, 4096), (0x9000, 4096)])
    whole = np.array([(7, 0, 3, 3, 0)], TABLE)
    ids = np.array([7], np.uint32)
    row = summarise(whole, rows, ids, np.array([2], np.uint32))[0]
    assert (row["runs"], row["total"], row["complete"]) == (1, 8192, True)
    holed = np.array([(7, 0, 1, 3, 0), (7, 2, 1, 3, 2)], TABLE)
    row = summarise(holed, rows, ids, np.array([3], np.uint32))[0]
    assert (row["entries"], row["complete"]) == (2, False)


def test_mappings_without_entries_are_zero() -> None:
    rows = segments([(0x1000, 4096)])
    tables = np.array([(7, 0, 1, 1, 0)], TABLE)
    ids = np.array([6, 8], np.uint32)
    assert not summarise(tables, rows, ids, np.array([1, 1], np.uint32))["entries"].any()
    none = summarise(tables[:0], rows[:0], ids, np.array([1, 1], np.uint32))
    assert not none["complete"].any()


def test_chunks_that_point_past_the_entries_are_dropped() -> None:
    rows = segments([(0x1000, 4096)])
    tables = np.array([(1, 0, 2, 2, 0), (2, 0, 1, 1, 1 << 63), (3, 0, 1, 1, 0)], TABLE)
    kept, _ = Chunks().join(tables, rows)
    assert kept["mapping"].tolist() == [3]


def test_chunks_wait_for_their_map_and_not_for_ever() -> None:
    chunks = Chunks()
    rows = segments([(0x1000, 4096), (0x2000, 4096)])
    tables = np.array([(1, 0, 1, 1, 0), (2, 0, 1, 1, 1)], TABLE)
    chunks.keep(tables, rows, np.array([1], np.uint32))
    later, entries = chunks.join(np.empty(0, TABLE), np.empty(0, SEGMENT))
    assert later["mapping"].tolist() == [2]
    assert entries["dma_address"][later["offset"][0]] == 0x2000
    chunks.keep(later, entries, np.array([2], np.uint32))
    assert not len(chunks.join(np.empty(0, TABLE), np.empty(0, SEGMENT))[0])
