# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose addresses a map in a private domain points to, over whole batches.

Candidates are the DMA addresses and the pages of the level-1 mappings that live at the map's
place of the stream. An address means something in one device's space only: where the context's
device is known, another's DMA address is none here (two devices have the same IOVAs all the time),
unless nothing translates it and it has no page. Of several, one of the context's own device is
better than another's, then one mapped by the same process, then one that holds more of what was
asked, then a DMA address before a page, then the newest. What the best one does not hold is asked
again, so that a map over two buffers' neighbouring pages becomes a piece of each.

Where the context's device is not known, and the address is one of several devices', nothing tells
whose it is, and nobody's it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.intervals import U64, Hits, join_hits
from dmabuf_tool.model.spans import DIRECT, REMEMBERED_NS

if TYPE_CHECKING:
    from dmabuf_tool.model.spans import Spans
    from dmabuf_tool.schema import Events

DMA, PAGES, UNKNOWN = 0, 1, 2
SOURCES: Final = ("dma-address", "pages", "unknown")
"""What fills level 2; unknown: an object of a GPU VM without a level-1 mapping."""

_ROUNDS: Final = 16
"""Pieces a single map may consist of."""


@dataclass(slots=True)
class Pieces:
    """Parts of maps that are some buffer's, by map and address, shape (n,).

    Attributes:
        asked: index of the map.
        low, high: what the map points to, bytes.
        position: row of its span.
        offset: of `low` in the buffer.
        source: DMA or PAGES.
    """

    asked: NDArray[np.intp]
    low: U64
    high: U64
    position: NDArray[np.intp]
    offset: U64
    source: NDArray[np.uint8]


def match(
    spans: Spans,
    maps: Events,
    seq: NDArray[np.uint64],
    devices: NDArray[np.uint32],
    groups: Mapping[int, int],
) -> Pieces:
    """Match the targets of maps.

    Args:
        maps: IOMMU_MAP events under the "iommu" names, shape (n,).
        seq: their places in the stream.
        devices: the device of each one's context, 0 where it is not known.
        groups: device -> its IOMMU group; devices of one share a space.
    """
    low = maps["paddr"].astype(np.uint64)
    high = low + maps["done"]
    ask = np.arange(len(maps))
    found: list[tuple[NDArray[Any], ...]] = []
    for _ in range(_ROUNDS):
        picked = _best(spans, maps, seq, devices, groups, ask, low, high) if len(ask) else None
        if picked is None:
            break
        at, hits, position, source = picked
        start = np.maximum(hits.start, low[at])
        end = np.minimum(hits.end, high[at])
        found.append((ask[at], start, end, position, hits.offset + (start - hits.start), source))
        before, behind = start > low[at], end < high[at]
        ask, low, high = (
            np.concatenate([ask[at][before], ask[at][behind]]),
            np.concatenate([low[at][before], end[behind]]),
            np.concatenate([start[before], high[at][behind]]),
        )
    if not found:
        none, empty = np.empty(0, np.intp), np.empty(0, np.uint64)
        return Pieces(none, empty, empty, none, empty, np.empty(0, np.uint8))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Pieces(*(column[order] for column in columns))


def _best(
    spans: Spans,
    maps: Events,
    seq: NDArray[np.uint64],
    devices: NDArray[np.uint32],
    groups: Mapping[int, int],
    ask: NDArray[np.intp],
    low: U64,
    high: U64,
) -> tuple[NDArray[np.intp], Hits, NDArray[np.intp], NDArray[np.uint8]] | None:
    """The best range of each question: (question, range, row of the span, source)."""
    parts = [spans.find(low, high, source) for source in (DMA, PAGES)]
    hits = join_hits(parts)
    if not len(hits):
        return None
    source = np.repeat(np.array([DMA, PAGES], np.uint8), [len(part) for part in parts])
    position = spans.store.find(hits.owner)
    rows = spans.store.rows
    when = seq[ask[hits.asked]]
    begun = (position >= 0) & (rows["seq"][position] < when)
    live = begun & (rows["end_seq"][position] > when)
    mine = devices[ask[hits.asked]]
    space = rows["space"][position]
    same = _same_space(rows["device"][position], mine, groups)
    unknown = mine == 0
    # A dead DMA address is only known for one in the domain of the device it was given to: as a
    # page it has long been somebody else's.
    dead = begun & ~live & (source == DMA) & (space != DIRECT) & (same | unknown)
    live &= same | unknown | (source == PAGES) | (space == DIRECT)
    dead &= rows["end_ns"][position] + np.uint64(REMEMBERED_NS) >= maps["ts_ns"][ask[hits.asked]]
    chosen = np.flatnonzero(live | dead)
    if not len(chosen):
        return None
    hits, position, source = hits.take(chosen), position[chosen], source[chosen]
    at, unknown = hits.asked, unknown[chosen]
    score = live[chosen].astype(np.uint8) * 8 + same[chosen] * 4
    score += (~same[chosen] & (unknown | (source == PAGES))) * np.uint8(2)
    score += rows["tgid"][position] == maps["tgid"][ask[at]]
    overlap = np.minimum(hits.end, high[at]) - np.maximum(hits.start, low[at])
    order = np.lexsort((hits.owner, source == DMA, overlap, score, at))
    last = np.append(at[order][1:] != at[order][:-1], True)
    best = order[last]
    if bool(np.any(unknown)):
        where = np.where(source == DMA, space[chosen], DIRECT)
        best = best[~_several(at[order], score[order], where[order])]
    return at[best], hits.take(best), position[best], source[best]


def _same_space(
    devices: NDArray[np.uint32], mine: NDArray[np.uint32], groups: Mapping[int, int]
) -> NDArray[np.bool_]:
    """Whether DMA addresses of the one are DMA addresses of the other."""
    same: NDArray[np.bool_] = devices == mine
    others = np.unique(devices[~same & (mine != 0)]).tolist()
    kin = [[two for two in others if groups.get(two) == groups[one]] for one in groups]
    for one, family in zip(groups, kin, strict=True):
        if family:
            same |= (mine == one) & np.isin(devices, family)
    return same


def _several(
    at: NDArray[np.intp], score: NDArray[np.uint8], space: NDArray[np.uint32]
) -> NDArray[np.bool_]:
    """Which questions have best candidates in several translated spaces; all by question and
    score."""
    begins = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
    count = np.diff(np.append(begins, len(at)))
    top = np.repeat(score[np.append(begins[1:], len(at)) - 1], count)
    ours = (score == top) & (space != DIRECT)
    lowest = np.minimum.reduceat(np.where(ours, space, np.uint32(0xFFFF_FFFF)), begins)
    highest = np.maximum.reduceat(np.where(ours, space, np.uint32(0)), begins)
    several: NDArray[np.bool_] = lowest < highest
    return several
