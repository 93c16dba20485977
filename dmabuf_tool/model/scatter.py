# SPDX-License-Identifier: GPL-2.0-or-later
"""Scatterlists to one row of numbers a mapping, over whole batches: the only place that reads
entries. Every rule on addresses, lengths and runs works on these rows.

The rows know no device. Where a check needs a device's mask the row holds the OR of the bits
that matter: an entry crosses a boundary b if (first ^ last) & ~b is not 0, and that holds for
some entry exactly if the OR over the entries of (first ^ last) has such a bit.

Device-side facts come from the DMA fields of the first `nents` entries (include/linux/
scatterlist.h: entries past nents have no DMA address after a merge).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.store import Rows, join
from dmabuf_tool.schema import PAGE_NONE, PAGE_UNKNOWN, SEGMENT, SG_DMA_BUS_ADDRESS, TABLE

SUMMARY_FIELDS: Final = [
    ("entries", "<u4"),  # DMA entries seen, at most nents
    ("total", "<u8"),  # sum of DMA lengths, bytes
    ("longest_entry", "<u4"),  # bytes
    ("runs", "<u4"),  # stretches of entries without a gap between DMA addresses
    ("longest_run", "<u8"),  # bytes
    ("first_run", "<u8"),  # bytes of the run the first entry begins: what importers check
    ("lowest", "<u8"),  # lowest DMA address; bus addresses left out, as in the next
    ("last", "<u8"),  # DMA address of the last byte of the highest entry
    ("address_bits", "<u8"),  # OR of the addresses
    ("length_bits", "<u4"),  # OR of the lengths
    ("crossed_bits", "<u8"),  # OR of first ^ last byte's address
    ("empty_entries", "<u4"),  # entries of DMA length 0
    ("dma_flags", "<u4"),  # OR of dma_flags
    ("pageless", "<u4"),  # entries without a page
    ("complete", "?"),  # all nents entries were seen
    ("physical", "?"),  # the first entry's DMA address is its page's physical address
]
SUMMARY: Final = np.dtype(SUMMARY_FIELDS)

PENDING_SEGMENTS: Final = 1 << 20
"""Entries kept for mappings whose MAP event has not come yet."""


class Chunks:
    """Chunks that came before the batch with their MAP event."""

    def __init__(self) -> None:
        self._tables: Rows = np.empty(0, TABLE)
        self._segments: Rows = np.empty(0, SEGMENT)

    def join(self, tables: Rows, segments: Rows) -> tuple[Rows, Rows]:
        """The batch's chunks behind those kept; chunks that point past the entries are dropped."""
        entries = np.uint64(len(segments))
        sound = (tables["offset"] <= entries) & (tables["count"] <= entries - tables["offset"])
        if not bool(np.all(sound)):
            tables = tables.compress(sound)
        if not len(self._tables):
            return tables, segments
        moved = tables.copy()
        moved["offset"] += np.uint64(len(self._segments))
        return (
            join([self._tables, moved]),
            join([self._segments, segments]),
        )

    def keep(self, tables: Rows, segments: Rows, mapped: NDArray[np.uint32]) -> None:
        """Keep the chunks of mappings that are not in `mapped`, the newest if they are many."""
        if len(tables):
            tables = tables.compress(~np.isin(tables["mapping"], mapped))
        if not len(tables):
            self._tables, self._segments = np.empty(0, TABLE), np.empty(0, SEGMENT)
            return
        size = np.cumsum(tables["count"][::-1].astype(np.uint64))[::-1]
        tables = tables.compress(size <= PENDING_SEGMENTS)
        counts = tables["count"].astype(np.int64)
        self._segments = segments.take(_positions(tables["offset"].astype(np.int64), counts))
        tables["offset"] = (np.cumsum(counts) - counts).astype(np.uint64)
        self._tables = tables


def _positions(offset: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """offset[0]..offset[0]+count[0], offset[1]..., as one index."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    index: NDArray[np.int64] = np.arange(total) + np.repeat(offset - (ends - count), count)
    return index


def summarise(
    tables: Rows, segments: Rows, mappings: NDArray[np.uint32], nents: NDArray[np.uint32]
) -> Rows:
    """One `SUMMARY` row for each mapping.

    Args:
        tables: chunks (schema.TABLE), in any order, of any mappings.
        segments: the entries they point into (schema.SEGMENT).
        mappings: ids that differ from each other, shape (n,).
        nents: DMA entries of each, shape (n,).
    """
    out = np.zeros(len(mappings), SUMMARY)
    if not len(tables) or not len(mappings):
        return out
    tables, row = _sorted_chunks(tables, mappings)
    first = tables["first"].astype(np.int64)
    count = tables["count"].astype(np.int64)
    take = np.clip(nents[row].astype(np.int64) - first, 0, count)
    used = take > 0
    if not bool(np.all(used)):
        tables, row, take = tables.compress(used), row[used], take[used]
    if not len(row):
        return out
    offset = tables["offset"].astype(np.int64)
    if bool(np.all(offset[1:] == offset[:-1] + take[:-1])):
        start = int(offset[0])
        entries = segments[start : start + int(take.sum())]
    else:
        entries = segments.take(_positions(offset, take))
    # Where a mapping begins, among the chunks and among the entries.
    begins = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
    starts = (np.cumsum(take) - take)[begins]
    seen = np.add.reduceat(take, begins)
    _fill(out, row[begins], starts, entries)
    rows = row[begins]
    out["entries"][rows] = seen
    out["complete"][rows] = seen == nents[rows]
    return out


def _sorted_chunks(tables: Rows, mappings: NDArray[np.uint32]) -> tuple[Rows, NDArray[np.intp]]:
    """The chunks of `mappings` by mapping and first entry, and each one's place in `mappings`."""
    key = (tables["mapping"].astype(np.uint64) << np.uint64(32)) | tables["first"]
    if bool(np.any(key[1:] < key[:-1])):
        tables = tables.take(np.argsort(key, kind="stable"))
    order = np.argsort(mappings, kind="stable")
    known = mappings[order]
    place = np.minimum(np.searchsorted(known, tables["mapping"]), len(known) - 1)
    wanted = known[place] == tables["mapping"]
    if not bool(np.all(wanted)):
        tables, place = tables.compress(wanted), place[wanted]
    return tables, order[place]


def _fill(
    out: Rows, rows: NDArray[np.intp], starts: NDArray[np.int64], entries: NDArray[Any]
) -> None:
    """Reduce the entries of each mapping into its row of `out`.

    `starts` (k,) is where each mapping's entries begin; every mapping has one at least.
    """
    address = np.ascontiguousarray(entries["dma_address"])
    length = entries["dma_length"].astype(np.uint64)
    flags = np.ascontiguousarray(entries["dma_flags"])
    end = address + length
    last = end - np.uint64(1)

    breaks = np.empty(len(address), np.bool_)
    breaks[0] = True
    np.not_equal(address[1:], end[:-1], out=breaks[1:])
    breaks[starts] = True
    run_starts = np.flatnonzero(breaks)
    run_bytes = np.add.reduceat(length, run_starts)
    first_run = np.searchsorted(run_starts, starts)
    out["runs"][rows] = np.diff(np.append(first_run, len(run_starts)))
    out["longest_run"][rows] = np.maximum.reduceat(run_bytes, first_run)
    out["first_run"][rows] = run_bytes[first_run]

    out["total"][rows] = np.add.reduceat(run_bytes, first_run)
    out["longest_entry"][rows] = np.maximum.reduceat(length, starts)
    out["length_bits"][rows] = np.bitwise_or.reduceat(length, starts)
    out["address_bits"][rows] = np.bitwise_or.reduceat(address, starts)
    crossed = address ^ last
    empty = length == 0
    if bool(np.any(empty)):
        crossed[empty] = 0
        out["empty_entries"][rows] = np.add.reduceat(empty.astype(np.uint32), starts)
    out["crossed_bits"][rows] = np.bitwise_or.reduceat(crossed, starts)

    first_page = entries["page"][starts]
    here = first_page + entries["offset"][starts] == address[starts]
    out["physical"][rows] = here & (first_page < PAGE_UNKNOWN)

    pageless = entries["page"] == np.uint64(PAGE_NONE)
    if bool(np.any(pageless)):
        out["pageless"][rows] = np.add.reduceat(pageless.astype(np.uint32), starts)

    lowest = address
    if bool(np.any(flags)):
        out["dma_flags"][rows] = np.bitwise_or.reduceat(flags, starts)
        # A bus address is not an address of the device's domain, and no mask holds for it.
        bus = (flags & SG_DMA_BUS_ADDRESS) != 0
        if bool(np.any(bus)):
            lowest = np.where(bus, np.uint64(0xFFFF_FFFF_FFFF_FFFF), address)
            last = np.where(bus, np.uint64(0), last)
    out["lowest"][rows] = np.minimum.reduceat(lowest, starts)
    out["last"][rows] = np.maximum.reduceat(last, starts)
