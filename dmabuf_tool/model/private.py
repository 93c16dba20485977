# SPDX-License-Identifier: GPL-2.0-or-later
"""What a batch does in private IOMMU domains: whose it is, and who does it.

Lookups (pieces.py) are for the whole batch. What belongs to a buffer goes by bulk.py, and what is
special one by one; everybody else's traffic (a virtual machine's memory, a GPU's own objects) is
only counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.bulk import Bulk, Left
from dmabuf_tool.model.clusters import CUT, Work
from dmabuf_tool.model.contexts import UNMANAGED, Context
from dmabuf_tool.model.level2 import Level2
from dmabuf_tool.model.level_state import LevelState
from dmabuf_tool.model.matching import Pieces
from dmabuf_tool.model.objects import name
from dmabuf_tool.model.order import Ops, Rare
from dmabuf_tool.model.pieces import Mapped, Matcher, processes
from dmabuf_tool.model.store import Rows
from dmabuf_tool.schema import Events, Flag, Kind

U64 = NDArray[np.uint64]
_NOTHING = np.empty(0, np.uint32)


class Private:
    """A batch's private-domain traffic, from events to `Ops`."""

    def __init__(self, state: LevelState, level2: Level2) -> None:
        self._state = state
        self._level2 = level2
        self._bulk = Bulk(state)
        self._matcher = Matcher(state, level2)
        self._lasts: list[tuple[Context, int]] = []

    def take(self, ops: list[Ops], rare: Rare, iommu: Events, seq: U64) -> NDArray[np.uint32]:
        """Do maps and unmaps, or queue them; returns the mappings that queued maps point to.

        The probes send nothing of other domains but what is inside a dma-buf call.
        """
        outside = (iommu["flags"] & Flag.INSIDE) == 0
        if not bool(np.any(outside)):
            return _NOTHING
        iommu, seq = iommu.compress(outside), seq[outside]
        known = [n for n in np.unique(iommu["domain"]).tolist() if self._is_private(n)]
        if len(known) < len(np.unique(iommu["domain"])):
            ours = np.isin(iommu["domain"], known)
            iommu, seq = iommu.compress(ours), seq[ours]
        is_map = iommu["kind"] == Kind.IOMMU_MAP
        maps, map_seq = iommu.compress(is_map), seq[is_map]
        unmaps, unmap_seq = iommu.compress(~is_map), seq[~is_map]
        self._own(maps)
        good = maps["done"] > 0
        refused, refused_seq = maps.compress(~good), map_seq[~good]
        maps, map_seq = maps.compress(good), map_seq[good]
        devices = self._matcher.devices_at(rare, maps["domain"], map_seq)
        pieces = self._matcher.match(ops, maps, map_seq, devices)
        mapped = self._matcher.rows(maps, map_seq, devices, pieces)
        self._count_others(known, maps, map_seq, pieces, unmaps)
        # Only contexts that hold or get ranges of buffers have ranges to lose.
        live = self._state.contexts.live
        full = [number for number in known if len(live[number].ranges)]
        holding = np.union1d(np.array(full, np.uint32), mapped.rows["context"])
        whole = [n for n in known if live[n].other_seq > int(seq[0])]
        ours = np.isin(unmaps["domain"], np.union1d(holding, np.array(whole, np.uint32)))
        ours |= unmaps["done"] != unmaps["size"]
        unmaps, unmap_seq = unmaps.compress(ours), unmap_seq[ours]
        ours = np.isin(refused["domain"], holding)
        refused, refused_seq = refused.compress(ours), refused_seq[ours]
        return self._share(ops, rare, mapped, (unmaps, unmap_seq), (refused, refused_seq))

    def settle(self) -> None:
        """After the ops of the batch have run."""
        for context, last in self._lasts:
            context.last = last
        self._lasts = []

    def _share(
        self,
        ops: list[Ops],
        rare: Rare,
        mapped: Mapped,
        unmaps: tuple[Events, U64],
        refused: tuple[Events, U64],
    ) -> NDArray[np.uint32]:
        """Divide what is to be done between bulk.py and level2.py."""
        rows, cuts = mapped.rows, _cuts(*unmaps)
        released = rare.events["buffer"][rare.told(Kind.RELEASE)]
        freed = rare.events["domain"][rare.told(Kind.DOMAIN_FREE)].tolist()
        fault = bool(np.any(rare.told(Kind.FAULT)))
        maps_left = np.zeros(len(rows), np.bool_)
        goes_on = np.zeros(len(rows), np.bool_)
        cuts_left = np.zeros(len(cuts), np.bool_)
        of_cut, of_refused = unmaps[0]["domain"], refused[0]["domain"]
        for number in np.union1d(rows["context"], of_cut).tolist():
            at = np.flatnonzero(rows["context"] == number)
            mine = np.flatnonzero(of_cut == number)
            here = of_refused == number
            context = self._state.contexts.live[number]
            work = Work(
                context, rows.take(at), mapped.nested[at], mapped.pageless[at], cuts.take(mine),
                _cuts(refused[0].compress(here), np.zeros(np.count_nonzero(here), np.uint64)),
            )  # fmt: skip
            left: Left = self._bulk.take(work, released, careful=fault or number in freed)
            maps_left[at], goes_on[at], cuts_left[mine] = left.maps, left.goes_on, left.cuts
            if left.last is not None:
                self._lasts.append((context, left.last))
        special = rows.compress(maps_left)
        flags = (mapped.nested[maps_left], mapped.pageless[maps_left], goes_on[maps_left])
        items = [
            (*row, *more)
            for row, *more in zip(special.tolist(), *(one.tolist() for one in flags), strict=True)
        ]
        ops.append(Ops(special["seq"], self._level2.on_piece, items))
        events, seq = unmaps[0].compress(cuts_left), unmaps[1][cuts_left]
        names = ("domain", "iova", "size", "done", "ts_ns")
        told = [events[one].tolist() for one in names]
        items = list(zip(*told, processes(events).tolist(), seq.tolist(), strict=True))
        ops.append(Ops(seq, self._level2.on_unmap, items))
        ops.append(Ops(refused[1], self._level2.on_refused, refused[0].tolist()))
        found: NDArray[np.uint32] = np.unique(special["mapping"])
        return found

    def _is_private(self, number: int) -> bool:
        contexts = self._state.contexts
        context = contexts.get(number)
        if context is not None and context.type is None:
            contexts.domain(number, UNMANAGED)
        return context is not None

    def _own(self, maps: Events) -> None:
        """Whoever maps first in a context without an owner owns it."""
        for number in np.unique(maps["domain"]).tolist():
            context = self._state.contexts.live[number]
            if not context.tgid:
                mine = maps.compress(maps["domain"] == number)
                for tgid, comm in zip(mine["tgid"].tolist(), mine["comm"].tolist(), strict=True):
                    context.owned_by(tgid, name(comm))
                    if context.tgid:
                        break

    def _count_others(
        self, known: list[int], maps: Events, seq: U64, pieces: Pieces, unmaps: Events
    ) -> None:
        """Count what is nobody's; unmaps of buffers' ranges are taken back when they are met."""
        mine = np.zeros(len(maps), np.uint64)
        np.add.at(mine, pieces.asked, pieces.high - pieces.low)
        for number in known:
            context = self._state.contexts.live[number]
            here = maps["domain"] == number
            rest = (maps["done"] - np.minimum(mine, maps["done"]))[here]
            context.other_bytes += int(rest.sum())
            if bool(np.any(rest)):
                first = int(seq[here][np.flatnonzero(rest)[0]])
                context.other_seq = min(context.other_seq, first)
            context.other_bytes -= int(unmaps["done"][unmaps["domain"] == number].sum())


def _cuts(events: Events, seq: U64) -> Rows:
    """Unmaps, or refused maps, as CUT rows."""
    rows = np.zeros(len(events), CUT)
    size = np.maximum(events["size"], np.uint64(1))
    rows["start"], rows["last"] = events["iova"], events["iova"] + size - np.uint64(1)
    rows["ts_ns"], rows["tgid"], rows["seq"] = events["ts_ns"], processes(events), seq
    rows["does"] = events["done"] != 0
    rows["whole"] = (events["done"] == events["size"]) & (events["size"] != 0)
    # An unmap past the end of all addresses is not simple.
    wrapped = rows["last"] < rows["start"]
    rows["last"][wrapped] = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    rows["whole"][wrapped] = False
    return rows
