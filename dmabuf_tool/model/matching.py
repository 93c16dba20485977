# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose addresses a map in a private domain points to, over whole batches.

Candidates are the DMA addresses and the pages of the level-1 mappings that live at the map's
place of the stream. Where there are several, one of the context's own device is better than
another's, then one mapped by the same process, then one that holds more of what was asked, then a
DMA address before a page, then the newest. What the best one does not hold is asked again, so
that a map over two buffers' neighbouring pages becomes a piece of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.intervals import U64, Hits, join_hits
from dmabuf_tool.model.spans import REMEMBERED_NS

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
    spans: Spans, maps: Events, seq: NDArray[np.uint64], devices: NDArray[np.uint32]
) -> Pieces:
    """Match the targets of maps.

    Args:
        maps: IOMMU_MAP events under the "iommu" names, shape (n,).
        seq: their places in the stream.
        devices: the device of each one's context, 0 where it is not known.
    """
    low = maps["paddr"].astype(np.uint64)
    high = low + maps["done"]
    ask = np.arange(len(maps))
    found: list[tuple[NDArray[Any], ...]] = []
    for _ in range(_ROUNDS):
        picked = _best(spans, maps, seq, devices, ask, low, high) if len(ask) else None
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
    same = rows["device"][position] == mine
    # A dead DMA address is only known for one in the domain of the device it was given to: as a
    # page it has long been somebody else's.
    dead = begun & ~live & (source == DMA) & (rows["space"][position] != 0) & (same | (mine == 0))
    dead &= rows["end_ns"][position] + np.uint64(REMEMBERED_NS) >= maps["ts_ns"][ask[hits.asked]]
    chosen = np.flatnonzero(live | dead)
    if not len(chosen):
        return None
    hits, position, source = hits.take(chosen), position[chosen], source[chosen]
    at = hits.asked
    score = live[chosen].astype(np.uint8) * 4 + same[chosen] * 2
    score += rows["tgid"][position] == maps["tgid"][ask[at]]
    overlap = np.minimum(hits.end, high[at]) - np.maximum(hits.start, low[at])
    order = np.lexsort((hits.owner, source == DMA, overlap, score, at))
    best = order[np.append(at[order][1:] != at[order][:-1], True)]
    return at[best], hits.take(best), position[best], source[best]
