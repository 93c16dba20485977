# SPDX-License-Identifier: GPL-2.0-or-later
"""Level 2, a batch of one private domain at once: what is not special.

Maps and unmaps of a context fall into clusters of addresses that nothing else of the batch
touches. In a simple cluster everything is about the same addresses: they are mapped and unmapped
in turn, whole, while the level-1 mapping below lives. What a simple cluster comes to does not
depend on anything else, so all of them are done with a few numpy calls; the rest is told to the
caller, for level2.py, to the same effect and at a hundred times the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.clusters import MAP, REFUSED, U64, UNMAP, Clusters, Mask, Work
from dmabuf_tool.model.contexts import Context
from dmabuf_tool.model.level_state import MAX_RANGES, LevelState
from dmabuf_tool.model.objects import NEVER
from dmabuf_tool.model.ranges import RANGE
from dmabuf_tool.model.removed import LEVEL1, REMOVED
from dmabuf_tool.model.store import Index, Rows

_FEW: Final = 16
"""Changes of a context that are not worth the calls."""


@dataclass(slots=True)
class Left:
    """What is left to be done one by one.

    Attributes:
        maps: which rows. goes_on: which rows may go on in what was mapped before them.
        cuts: which cuts.
        last: slot of what was mapped last with nothing cut since, -1 for nothing; None: as it is.
    """

    maps: Mask
    goes_on: Mask
    cuts: Mask
    last: int | None


class Bulk:
    """Changes of `LevelState`."""

    def __init__(self, state: LevelState) -> None:
        self._state = state

    def take(self, work: Work, released: NDArray[np.uint32], *, careful: bool) -> Left:
        """Do what is simple. `released`: buffers released in the batch, whose ranges are special.
        `careful`: everything is."""
        context, rows, cuts = work.context, work.rows, work.cuts
        cutting = cuts["seq"][cuts["does"]]
        follows = _follows(rows, cutting)
        everything = np.ones(len(rows), np.bool_), np.ones(len(cuts), np.bool_)
        left = Left(everything[0], follows.copy(), everything[1], None)
        if len(rows):
            left.goes_on[0] = not len(cutting) or cutting[0] > rows["seq"][0]
        if not len(rows) or bool(np.any(cutting > rows["seq"][-1])):
            left.last = -1 if len(cutting) else None
        full = len(self._state.ranges) + len(rows) > MAX_RANGES
        if careful or full or len(rows) + len(cuts) < _FEW:
            return left
        begins = np.flatnonzero(~follows)
        ends = np.append(begins, len(rows))[1:]
        runs = rows.take(begins)
        runs["last"] = rows["last"][ends - 1]
        clusters = Clusters(work, runs)
        simple = self._simple(work, clusters, runs, released)
        if len(rows) and left.goes_on[0] and self._extends(context, rows[0]):
            simple[clusters.of[(clusters.kind == MAP) & (clusters.number == 0)]] = False
        idle = self._idle(work, clusters)
        slots = self._apply(work, clusters, runs, begins, simple)
        done = simple[clusters.of]
        left.cuts[clusters.number[(clusters.kind == UNMAP) & (done | idle[clusters.of])]] = False
        mapped = np.zeros(len(runs), np.bool_)
        mapped[clusters.number[(clusters.kind == MAP) & done]] = True
        left.maps = ~np.repeat(mapped, ends - begins)
        if len(runs) and mapped[-1] and left.last is None:
            left.last = int(slots[-1])
        return left

    def _extends(self, context: Context, row: np.void) -> bool:
        """Whether a row may go on in what was mapped last before the batch."""
        if context.last < 0:
            return False
        last = self._state.ranges.rows[context.last]
        return int(row["start"]) == int(last["last"]) + 1

    def _simple(
        self, work: Work, clusters: Clusters, runs: Rows, released: NDArray[np.uint32]
    ) -> Mask:
        """Which clusters are."""
        ranges = work.context.ranges
        kind, number = clusters.kind, clusters.number
        good = clusters.alike & (kind != REFUSED)
        good[1:] &= clusters.begins[1:] | (kind[1:] != kind[:-1])
        unmap = kind == UNMAP
        good[unmap] &= work.cuts["whole"][number[unmap]]
        simple = clusters.all(good)
        low, high = ranges.overlaps(clusters.start, clusters.reach)
        ends_old = unmap[clusters.first]
        simple &= np.where(ends_old, high - low == 1, high == low)
        old = np.flatnonzero(simple & ends_old)
        rows = ranges.rows.take(low[old])
        simple[old] &= (rows["start"] == clusters.start[old]) & (rows["last"] == clusters.last[old])
        # Level 1 lives all the while, and so does the buffer.
        simple[old] &= self._outlived(rows, clusters.seq[clusters.first[old]], released)
        maps = np.flatnonzero(kind == MAP)
        lives = self._outlived(runs.take(number[maps]), clusters.ends()[maps], released)
        simple[clusters.of[maps[~lives]]] = False
        return simple

    def _outlived(self, rows: Rows, until: U64, released: NDArray[np.uint32]) -> Mask:
        """Whether what is below each row lives until a place of the stream (NEVER: still)."""
        spans = self._state.spans.store
        position = spans.find(rows["mapping"])
        lives = (position >= 0) & (spans.rows["end_seq"][position] >= until)
        lives |= rows["mapping"] == 0
        if len(released):
            lives &= ~np.isin(rows["buffer"], released)
        return lives

    def _idle(self, work: Work, clusters: Clusters) -> Mask:
        """Which clusters are whole unmaps of what is nobody's, in a context that has such."""
        known, unmap = np.uint64(work.context.other_seq), clusters.kind == UNMAP
        nobodys = unmap & (clusters.seq >= known)
        nobodys[unmap] &= work.cuts["whole"][clusters.number[unmap]]
        nothing = clusters.all(nobodys)
        low, high = work.context.ranges.overlaps(clusters.start, clusters.reach)
        idle: Mask = nothing & (low == high)
        return idle

    def _apply(
        self, work: Work, clusters: Clusters, runs: Rows, begins: Index, simple: Mask
    ) -> Index:
        """Do simple clusters; the slot of each run, -1 for none."""
        state, context = self._state, work.context
        kind, number, done = clusters.kind, clusters.number, simple[clusters.of]
        runs["tgid"][runs["tgid"] == 0] = context.tgid
        slots = np.full(len(runs), -1, np.intp)
        mapped = np.zeros(len(runs), np.bool_)
        maps = np.flatnonzero((kind == MAP) & done)
        mapped[number[maps]] = True
        if len(maps):
            rows = runs.compress(mapped)
            at = begins[mapped]
            state.usage.add_rows(rows, work.nested[at], work.pageless[at])
            state.bound(np.unique(rows["attachment"]).tolist())
            context.mapped += len(rows)
            context.bytes += int((rows["last"] - rows["start"] + np.uint64(1)).sum())
        cuts = np.flatnonzero((kind == UNMAP) & done)
        fresh = ~clusters.begins[cuts]
        low, _ = context.ranges.overlaps(clusters.start, clusters.reach)
        old = low[clusters.of[cuts[~fresh]]]
        gone = context.ranges.rows.take(old)
        self._end(work, gone, number[cuts[~fresh]])
        self._end(work, runs.take(number[cuts[fresh] - 1]), number[cuts[fresh]])
        if len(gone):
            state.count(gone, -1)
            context.ranges.remove(old)
        stay = maps[clusters.ends()[maps] == NEVER]
        if len(stay):
            # Clusters are by address.
            rows = runs.take(number[stay])
            slots[number[stay]] = context.ranges.insert(rows)
            state.count(rows, 1)
        return slots

    def _end(self, work: Work, rows: Rows, cuts: Index) -> None:
        """Remember ranges that ended, each with its unmap."""
        if not len(rows):
            return
        out = np.zeros(len(rows), REMOVED)
        for name in RANGE.names or ():
            out[name] = rows[name]
        out["ended_ns"], out["ended_by"] = work.cuts["ts_ns"][cuts], work.cuts["tgid"][cuts]
        out["ended_by"][out["ended_by"] == 0] = work.context.tgid
        spans = self._state.spans.store
        position = spans.find(rows["mapping"])
        known = position >= 0
        for name, of in zip(("domain", "address", "size", "entries"), LEVEL1, strict=True):
            out[name] = np.where(known, spans.rows[of][position], 0)
        self._state.removed.put(out)
        size = rows["last"] - rows["start"] + np.uint64(1)
        work.context.other_bytes += int(size.sum())


def _follows(rows: Rows, cutting: U64) -> Mask:
    """Which rows go on in the row before, with no cut between them."""
    follows = np.zeros(len(rows), np.bool_)
    if len(rows) > 1:
        before, after = rows[:-1], rows[1:]
        step = before["last"] - before["start"] + np.uint64(1)
        follows[1:] = after["start"] == before["last"] + np.uint64(1)
        follows[1:] &= after["offset"] == before["offset"] + step
        for name in ("mapping", "buffer", "attachment", "source"):
            follows[1:] &= after[name] == before[name]
        place = np.searchsorted(cutting, rows["seq"])
        follows[1:] &= place[1:] == place[:-1]
    return follows
