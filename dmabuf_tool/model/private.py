# SPDX-License-Identifier: GPL-2.0-or-later
"""What a batch does in private IOMMU domains: whose it is, and who does it.

Lookups (matching.py) are for the whole batch. What belongs to a buffer goes by bulk.py, and what is
special one by one; everybody else's traffic (a virtual machine's memory, a GPU's own objects) is
only counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.bulk import CUT, Bulk, Left, Work
from dmabuf_tool.model.constraints import NO_GROUP
from dmabuf_tool.model.contexts import UNMANAGED, WORKER, Context
from dmabuf_tool.model.level2 import Level2
from dmabuf_tool.model.level_state import LevelState
from dmabuf_tool.model.matching import DMA, PAGES, Pieces, match
from dmabuf_tool.model.objects import name
from dmabuf_tool.model.order import Ops
from dmabuf_tool.model.ranges import RANGE
from dmabuf_tool.model.store import Rows
from dmabuf_tool.schema import Events, Flag, Kind

U64 = NDArray[np.uint64]
_NOTHING = np.empty(0, np.uint32)


@dataclass(slots=True)
class Rare:
    """The events that are done one by one, and their places in the stream."""

    events: Events
    seq: U64

    def told(self, *kinds: Kind) -> NDArray[np.bool_]:
        """Which are of these kinds."""
        return np.isin(self.events["kind"], kinds)


@dataclass(slots=True)
class _Mapped:
    """Parts of maps that are some buffer's, in the order of the stream, shape (n,)."""

    rows: Rows
    nested: NDArray[np.bool_]
    pageless: NDArray[np.bool_]


class Private:
    """A batch's private-domain traffic, from events to `Ops`."""

    def __init__(self, state: LevelState, level2: Level2) -> None:
        self._state = state
        self._level2 = level2
        self._bulk = Bulk(state)
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
        devices = self._devices_at(rare, maps["domain"], map_seq)
        pieces = self._match(ops, maps, map_seq, devices)
        mapped = self._mapped(maps, map_seq, devices, pieces)
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
        mapped: _Mapped,
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
        items = list(zip(*told, _processes(events).tolist(), seq.tolist(), strict=True))
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

    def _devices_at(self, rare: Rare, domains: NDArray[np.uint32], seq: U64) -> NDArray[np.uint32]:
        """The device of each map's context, as far as the stream had told by then."""
        out = np.zeros(len(domains), np.uint32)
        telling = rare.told(Kind.DOMAIN, Kind.DOMAIN_ATTACH)
        telling &= (rare.events["device"] != 0) & (rare.events["result"] == 0)
        told, told_seq = rare.events.compress(telling), rare.seq[telling]
        for number in np.unique(domains).tolist():
            mine = domains == number
            known = self._state.contexts.live[number].device
            out[mine] = known
            first = np.flatnonzero(told["domain"] == number)
            if not known and len(first):
                out[mine & (seq > told_seq[first[0]])] = told["device"][first[0]]
        return out

    def _match(self, ops: list[Ops], maps: Events, seq: U64, devices: NDArray[np.uint32]) -> Pieces:
        """Match maps; completes `devices`: the first DMA address in a context that is one device's
        and no other's tells whose context it is."""
        told: list[tuple[int, tuple[int, int]]] = []
        known = self._state.model.registry.devices.values()
        groups = {
            one.id: one.limits.group for one in known if one.limits and one.limits.group != NO_GROUP
        }
        pieces = match(self._state.spans, maps, seq, devices, groups)
        telling = (devices[pieces.asked] == 0) & (pieces.source == DMA)
        if not bool(np.any(telling)):
            return pieces
        rows = self._state.spans.store.rows.take(pieces.position)
        telling &= rows["space"] != 0
        where = np.flatnonzero(telling)
        where = where[np.argsort(pieces.asked[where], kind="stable")]
        again = np.zeros(len(maps), np.bool_)
        numbers, first = np.unique(maps["domain"][pieces.asked[where]], return_index=True)
        for number, place in zip(numbers.tolist(), where[first].tolist(), strict=True):
            device, when = int(rows["device"][place]), int(seq[pieces.asked[place]])
            told.append((when, (number, device)))
            later = (maps["domain"] == number) & (seq > when)
            devices[later] = device
            again |= later
        ops.append(Ops(np.array([when for when, _ in told], np.uint64), self._level2.on_told,
                       [one for _, one in told]))  # fmt: skip
        if bool(np.any(again)):
            return match(self._state.spans, maps, seq, devices, groups)
        return pieces

    def _mapped(
        self, maps: Events, seq: U64, devices: NDArray[np.uint32], pieces: Pieces
    ) -> _Mapped:
        """Pieces as RANGE rows."""
        at = pieces.asked
        spans = self._state.spans.store.rows.take(pieces.position)
        rows = np.zeros(len(at), RANGE)
        rows["context"] = maps["domain"][at]
        rows["start"] = maps["iova"][at] + (pieces.low - maps["paddr"][at])
        rows["last"] = rows["start"] + (pieces.high - pieces.low) - np.uint64(1)
        rows["offset"], rows["source"] = pieces.offset, pieces.source
        rows["tgid"] = _processes(maps)[at]
        rows["ts_ns"], rows["seq"] = maps["ts_ns"][at], seq[at]
        # Another device's mapping tells whose pages these are; it is not bypassed by them.
        mine = devices[at]
        foreign = (pieces.source == PAGES) & (mine != 0) & (spans["device"] != mine)
        rows["buffer"] = spans["buffer"]
        rows["attachment"] = np.where(foreign, 0, spans["attachment"])
        rows["mapping"] = np.where(foreign, 0, spans["id"])
        rows["device"] = np.where(foreign, mine, spans["device"])
        nested = (spans["space"] != 0) & (pieces.source == DMA)
        pageless = (spans["pageless"] != 0) & (pieces.source == PAGES)
        return _Mapped(rows, nested, pageless)

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


def _processes(events: Events) -> NDArray[np.uint32]:
    """The process of each event; 0 for a kernel worker's, whose work is its context's owner's."""
    worker = np.char.startswith(events["comm"], WORKER.encode())
    found: NDArray[np.uint32] = np.where(worker, np.uint32(0), events["tgid"])
    return found


def _cuts(events: Events, seq: U64) -> Rows:
    """Unmaps, or refused maps, as CUT rows."""
    rows = np.zeros(len(events), CUT)
    size = np.maximum(events["size"], np.uint64(1))
    rows["start"], rows["last"] = events["iova"], events["iova"] + size - np.uint64(1)
    rows["ts_ns"], rows["tgid"], rows["seq"] = events["ts_ns"], _processes(events), seq
    rows["does"] = events["done"] != 0
    rows["whole"] = (events["done"] == events["size"]) & (events["size"] != 0)
    # An unmap past the end of all addresses is not simple.
    wrapped = rows["last"] < rows["start"]
    rows["last"][wrapped] = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    rows["whole"][wrapped] = False
    return rows
