# SPDX-License-Identifier: GPL-2.0-or-later
"""Level 2: what is mapped in contexts on top of level 1, and what the two do to each other.

A map in a private IOMMU domain names an address and nothing else. Whose it is, and whether it is
a DMA address (level 1 is used) or a page (level 1 is bypassed), is found by looking it up among
the level-1 mappings (private.py, matching.py). Providers of GPU VMs name the attachment: nothing to
look up (level_events.py).

Most maps and unmaps of a batch are done at once (bulk.py). What is special, the ends of mappings
with level 2 on top, and what happens to buffers and contexts is taken one by one in the order of
the stream (order.py, level2.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.contexts import UNMANAGED
from dmabuf_tool.model.hazards import Hazard
from dmabuf_tool.model.level2 import Level2
from dmabuf_tool.model.level_events import KINDS, LevelEvents
from dmabuf_tool.model.level_state import LevelState
from dmabuf_tool.model.misfits import Misfits
from dmabuf_tool.model.objects import NEVER, name
from dmabuf_tool.model.order import Ops, Rare, run
from dmabuf_tool.model.private import Private
from dmabuf_tool.schema import SEGMENT, TABLE, Events, Kind, view

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.store import Rows


class Levels(LevelState):
    """See the module's docstring."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._level2 = Level2(self)
        self._events = LevelEvents(self, self._level2)
        self._private = Private(self, self._level2)
        self._misfits = Misfits(self.spans)
        self._tables: tuple[Rows, Rows] = (np.empty(0, TABLE), np.empty(0, SEGMENT))

    def take_tables(self, tables: Rows, segments: Rows) -> None:
        """The chunks for the maps of the next `apply`."""
        self._tables = (tables, segments)

    def apply(
        self,
        events: Events,
        seq: NDArray[np.uint64],
        calls: Rows,
        ended: Rows,
        unmaps: Events,
        unmap_seq: NDArray[np.uint64],
        iommu: Events,
        iommu_seq: NDArray[np.uint64],
    ) -> list[Hazard]:
        """Take a batch, after the rest of the model has; its facts, by time."""
        self.hazards = []
        effective = self.model.registry.sites.effective
        if len(events):
            self.spans.forget(int(events["ts_ns"].min()), self.linked())
        fresh = self.spans.add(calls, *self._tables, effective["translated"])
        self._tables = (np.empty(0, TABLE), np.empty(0, SEGMENT))
        self.spans.end(ended, unmaps, events)
        ordered = np.flatnonzero(KINDS[np.minimum(events["kind"], 255)])
        rare = Rare(events.take(ordered), seq[ordered])
        one_by_one = [(rare.events[n : n + 1], int(at)) for n, at in enumerate(rare.seq.tolist())]
        ops = [Ops(rare.seq, self._events.on_event, one_by_one)]
        self._introduce(rare)
        linked = self.linked()
        special = self._private.take(ops, rare, iommu, iommu_seq)
        linked = np.union1d(linked, np.union1d(self.linked(), special)).astype(np.uint32)
        bound = rare.events["attachment"][rare.told(Kind.LEVEL2_MAP)]
        self._endings(ops, rare, ended, linked, bound)
        self._reused(ops, fresh, linked, bound)
        run(ops)
        self._private.settle()
        self.removed.flush()
        detached = events["attachment"][events["kind"] == Kind.DETACH]
        self.hazards += self._misfits.moved(fresh, self.invalidated)
        self.hazards += self._misfits.mapped_again(calls, unmaps, unmap_seq)
        moved = np.fromiter(self.switches, np.uint32, len(self.switches))
        self.hazards += self._misfits.elsewhere(ended, unmaps, moved, self.domain_at)
        self._misfits.detached(detached)
        self._forget(rare)
        self.hazards.sort(key=lambda one: one.ts_ns)
        return self.hazards

    def _introduce(self, rare: Rare) -> None:
        """Make the domains a batch names; a driver's own belongs to who made it."""
        for event in view(rare.events.compress(rare.told(Kind.DOMAIN)), "dom"):
            context = self.contexts.domain(int(event["domain"]), int(event["type"]))
            if context is not None and context.type == UNMANAGED:
                # Who made it comes before who maps in it, in the same batch too.
                context.owned_by(int(event["tgid"]), name(event["comm"]))

    def _forget(self, rare: Rare) -> None:
        """Drop what was kept of buffers released in the batch."""
        for buffer in rare.events["buffer"][rare.told(Kind.RELEASE)].tolist():
            self.invalidated.pop(buffer, None)
            self._misfits.released(buffer)

    def _endings(
        self,
        ops: list[Ops],
        rare: Rare,
        ended: Rows,
        linked: NDArray[np.uint32],
        bound: NDArray[np.uint32],
    ) -> None:
        """Queue the ends of mappings that have, or get one by one, ranges on top."""
        if not len(ended):
            return
        ours = np.isin(ended["id"], linked)
        ours |= np.isin(ended["attachment"], bound)
        if self.invalidated or bool(np.any(rare.told(Kind.INVALIDATE))):
            ours[:] = True
        rows = ended.compress(ours)
        ops.append(Ops(rows["end_seq"], self._level2.on_end, rows.tolist()))

    def _reused(
        self, ops: list[Ops], fresh: Rows, linked: NDArray[np.uint32], bound: NDArray[np.uint32]
    ) -> None:
        """Queue new mappings that got addresses of ended ones that ranges may still target."""
        store = self.spans.store
        if len(bound):
            mine = np.isin(store.rows["attachment"], bound) & store.alive
            linked = np.union1d(linked, store.rows["id"][mine]).astype(np.uint32)
        if not len(linked) or not len(fresh):
            return
        position = store.find(linked)
        position = position[position >= 0]
        position = position[store.rows["end_seq"][position] != NEVER]
        items, places = [], []
        for old in store.rows.take(position):
            if not old["space"]:
                continue
            space = self.spans.in_space(int(old["space"]))
            old_ranges = space.of(int(old["id"]))
            hits = space.find(old_ranges.start, old_ranges.end)
            hits = hits.take(np.isin(hits.owner, fresh["id"]))
            rows = store.rows.take(store.find(hits.owner))
            new = (rows["seq"] > old["end_seq"]) & (rows["buffer"] != old["buffer"])
            for at in np.flatnonzero(new).tolist():
                asked = int(hits.asked[at])
                low = max(int(hits.start[at]), int(old_ranges.start[asked]))
                high = min(int(hits.end[at]), int(old_ranges.end[asked]))
                offset = int(old_ranges.offset[asked]) + low - int(old_ranges.start[asked])
                items.append((int(old["id"]), int(hits.owner[at]), low, high, offset))
                places.append(int(rows["seq"][at]))
        ops.append(Ops(np.array(places, np.uint64), self._level2.on_reuse, items))
