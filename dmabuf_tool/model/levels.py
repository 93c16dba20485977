# SPDX-License-Identifier: GPL-2.0-or-later
"""Level 2: what is mapped in contexts on top of level 1, and what the two do to each other.

A map in a private IOMMU domain names an address and nothing else. Whose it is, and whether it is
a DMA address (level 1 is used) or a page (level 1 is bypassed), is found by looking it up among
the level-1 mappings (matching.py). Providers of GPU VMs name the attachment: nothing to look up.

Lookups are done for whole batches. What belongs to a buffer is then taken one by one in the order
of the stream, together with the ends of mappings, buffers and contexts; everybody else's traffic
in private domains (a virtual machine's memory, a GPU's own objects) is only counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.constraints import NO_GROUP
from dmabuf_tool.model.contexts import (
    GPU_VM,
    TELL_ALL,
    UNMANAGED,
    WORKER,
    Context,
    Contexts,
    is_worker,
)
from dmabuf_tool.model.faults import explain
from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.mappings import MAPPING
from dmabuf_tool.model.matching import DMA, PAGES, UNKNOWN, Pieces, match
from dmabuf_tool.model.misfits import Misfits
from dmabuf_tool.model.objects import NEVER, name
from dmabuf_tool.model.ranges import Range
from dmabuf_tool.model.spans import Spans
from dmabuf_tool.schema import EVENT, PAYLOAD_OF, SEGMENT, TABLE, VIEWS, Events, Flag, Kind, view

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.store import Rows

BY_PAGES: Final = frozenset({6})
"""Providers (contexts.PROVIDERS) that fill their tables from sg_phys() in all versions: msm
(drivers/gpu/drm/msm/msm_iommu.c, msm_iommu_pagetable_map())."""

MAX_RANGES: Final = 1 << 20
_REMOVED_KEPT: Final = 1 << 16
_SWITCHES_KEPT: Final = 256
_INVALIDATIONS_KEPT: Final = 16
_BUFFERS_COUNTED: Final = 4096
_EVERYTHING: Final = 1 << 64

Record = dict[str, Any]
"""One event as names and Python values."""


@dataclass(slots=True)
class Removed:
    """A range that was taken out of its context, when and by whom; and the level 1 under it:
    domain (0: none translates), first DMA address, bytes and entries. All 0 where it has none."""

    range: Range
    ts_ns: int
    tgid: int
    domain: int = 0
    address: int = 0
    size: int = 0
    entries: int = 0


@dataclass(slots=True)
class Usage:
    """What was mapped in a context from one source since the start.

    `nested` counts ranges whose level 1 translates, `pageless` those of tables without pages;
    `worst` is the largest range, the first of its size.
    """

    count: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    nested: int = 0
    nested_bytes: int = 0
    pageless: int = 0
    buffers: set[int] = field(default_factory=set)
    worst: Range | None = None


class Levels:
    """See the module's docstring."""

    def __init__(self, model: Model) -> None:
        self.contexts = Contexts()
        self.spans = Spans()
        self.usage: dict[tuple[int, int], Usage] = {}
        """(context, source) -> what was mapped."""
        self.removed: deque[Removed] = deque(maxlen=_REMOVED_KEPT)
        self.switches: dict[int, deque[tuple[int, int, int]]] = {}
        """Device -> (seq, ts_ns, domain) of its moves, the first one where it was before."""
        self._domains: dict[int, int] = {}
        """Device -> its domain as of its last attach."""
        self.stale: dict[int, int] = {}
        """Ended mappings that ranges still target -> when they ended, ns."""
        self.invalidated: dict[int, deque[tuple[int, int]]] = {}
        """Buffer -> (seq, ts_ns) of its last invalidations."""
        self.untracked = 0
        self.removals = 0
        """How many were removed since the start."""
        self._model = model
        self._misfits = Misfits(self.spans)
        self._ranges = 0
        self._on_top: dict[int, set[Range]] = {}
        self._buffers: dict[int, int] = {}
        """Buffer -> number of ranges."""
        self._tables: tuple[Rows, Rows] = (np.empty(0, TABLE), np.empty(0, SEGMENT))
        self._hazards: list[Hazard] = []
        self._rare: Events = np.empty(0, EVENT)
        self._rare_seq: NDArray[np.uint64] = np.empty(0, np.uint64)

    # What is asked from outside

    def domain_at(self, device: int, ts_ns: int) -> int:
        """The domain a device was in at a time, 0 if that is not known."""
        moves = self.switches.get(device)
        if not moves:
            return self._domains.get(device, 0)
        found = moves[0][2]
        for _, when, domain in moves:
            if when <= ts_ns:
                found = domain
        return found

    def device_called(self, wanted: str) -> int:
        """The newest device of a name, 0 if there is none."""
        devices = self._model.registry.devices.values() if wanted else ()
        return max((one.id for one in devices if one.name == wanted), default=0)

    def removed_since(self, removals: int) -> list[Removed]:
        """What was removed since `removals` was so many, as far as it is remembered."""
        fresh = min(self.removals - removals, len(self.removed))
        return list(islice(self.removed, len(self.removed) - fresh, None))

    def on_top(self, mapping: int) -> set[Range]:
        """The ranges that target a mapping."""
        return self._on_top.get(mapping, set())

    def is_nested(self, one: Range) -> bool:
        """Whether level 1 of a range translates."""
        row = self.spans.row(one.mapping) if one.mapping and one.source == DMA else None
        return row is not None and bool(row["space"])

    # A batch

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
        self._hazards = []
        model = self._model
        effective = model.registry.sites.effective
        if len(events):
            self.spans.forget(int(events["ts_ns"].min()), self.linked())
        fresh = self.spans.add(calls, *self._tables, effective["translated"])
        self._tables = (np.empty(0, TABLE), np.empty(0, SEGMENT))
        self.spans.end(ended, unmaps, events)
        ordered = np.flatnonzero(_ORDERED[np.minimum(events["kind"], 255)])
        rare = events.take(ordered)
        ops = [_Ops(seq[ordered], self._on_event, list(range(len(rare))))]
        self._rare, self._rare_seq = rare, seq[ordered]
        self._introduce(rare)
        matched = self._private(ops, iommu, iommu_seq)
        bound = rare["attachment"][rare["kind"] == Kind.LEVEL2_MAP]
        self._endings(ops, ended, matched, bound)
        self._reused(ops, fresh, matched, bound)
        _run(ops)
        detached = events["attachment"][events["kind"] == Kind.DETACH]
        self._hazards += self._misfits.moved(fresh, self.invalidated)
        self._hazards += self._misfits.mapped_again(calls, unmaps, unmap_seq)
        moved = np.fromiter(self.switches, np.uint32, len(self.switches))
        self._hazards += self._misfits.elsewhere(ended, unmaps, moved, self.domain_at)
        self._misfits.detached(detached)
        self._forget(rare)
        self._hazards.sort(key=lambda one: one.ts_ns)
        return self._hazards

    def linked(self) -> NDArray[np.uint32]:
        """Mappings with ranges on top."""
        return np.fromiter(self._on_top, np.uint32, len(self._on_top))

    def _introduce(self, rare: Events) -> None:
        """Make the domains a batch names; a driver's own belongs to who made it."""
        for event in view(rare.compress(rare["kind"] == Kind.DOMAIN), "dom"):
            context = self.contexts.domain(int(event["domain"]), int(event["type"]))
            if context is not None and context.type == UNMANAGED:
                # Who made it comes before who maps in it, in the same batch too.
                context.owned_by(int(event["tgid"]), name(event["comm"]))

    def _forget(self, rare: Events) -> None:
        """Drop what was kept of buffers released in the batch."""
        for buffer in rare["buffer"][rare["kind"] == Kind.RELEASE].tolist():
            self.invalidated.pop(buffer, None)
            self._misfits.released(buffer)

    def _private(
        self, ops: list[_Ops], iommu: Events, seq: NDArray[np.uint64]
    ) -> NDArray[np.uint32]:
        """Queue maps and unmaps in private domains; returns the mappings they point to.

        The probes send nothing of other domains but what is inside a dma-buf call.
        """
        outside = (iommu["flags"] & Flag.INSIDE) == 0
        if not bool(np.any(outside)):
            return np.empty(0, np.uint32)
        iommu, seq = iommu.compress(outside), seq[outside]
        known = [n for n in np.unique(iommu["domain"]).tolist() if self._private_domain(n)]
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
        devices = self._devices_at(maps["domain"], map_seq)
        pieces = self._match(ops, maps, map_seq, devices)
        at = pieces.asked
        rows = self.spans.store.rows.take(pieces.position)
        columns = (
            maps["domain"][at], maps["iova"][at] + (pieces.low - maps["paddr"][at]),
            pieces.high - pieces.low, rows["buffer"], rows["attachment"], rows["id"],
            pieces.offset, pieces.source, rows["device"], devices[at], maps["tgid"][at],
            maps["ts_ns"][at], map_seq[at], rows["space"] != 0, rows["pageless"] != 0,
        )  # fmt: skip
        items = list(zip(*(column.tolist() for column in columns), strict=True))
        ops.append(_Ops(map_seq[at], self._on_piece, items))
        mine = np.zeros(len(maps), np.uint64)
        np.add.at(mine, at, pieces.high - pieces.low)
        for number in known:
            context = self.contexts.live[number]
            here = maps["domain"] == number
            rest = (maps["done"] - np.minimum(mine, maps["done"]))[here]
            context.other_bytes += int(rest.sum())
            if bool(np.any(rest)):
                first = int(map_seq[here][np.flatnonzero(rest)[0]])
                context.other_seq = min(context.other_seq, first)
            context.other_bytes -= int(unmaps["done"][unmaps["domain"] == number].sum())
        # Only contexts that hold or get ranges of buffers have ranges to lose.
        full = [number for number in known if len(self.contexts.live[number].ranges)]
        holding = np.union1d(np.array(full, np.uint32), maps["domain"][at])
        whole = [n for n in known if self.contexts.live[n].other_seq > int(seq[0])]
        ours = np.isin(unmaps["domain"], np.union1d(holding, np.array(whole, np.uint32)))
        ours |= unmaps["done"] != unmaps["size"]
        chosen = unmaps.compress(ours)
        names = ("domain", "iova", "size", "done", "ts_ns")
        told = [chosen[one].tolist() for one in names]
        told += [_processes(chosen).tolist(), unmap_seq[ours].tolist()]
        items = list(zip(*told, strict=True))
        ops.append(_Ops(unmap_seq[ours], self._on_unmap, items))
        ours = np.isin(refused["domain"], holding)
        ops.append(_Ops(refused_seq[ours], self._on_refused, refused.compress(ours).tolist()))
        found: NDArray[np.uint32] = np.unique(rows["id"])
        return found

    def _private_domain(self, number: int) -> bool:
        context = self.contexts.get(number)
        if context is not None and context.type is None:
            self.contexts.domain(number, UNMANAGED)
        return context is not None

    def _own(self, maps: Events) -> None:
        """Whoever maps first in a context without an owner owns it."""
        for number in np.unique(maps["domain"]).tolist():
            context = self.contexts.live[number]
            if not context.tgid:
                mine = maps.compress(maps["domain"] == number)
                for tgid, comm in zip(mine["tgid"].tolist(), mine["comm"].tolist(), strict=True):
                    context.owned_by(tgid, name(comm))
                    if context.tgid:
                        break

    def _devices_at(
        self, domains: NDArray[np.uint32], seq: NDArray[np.uint64]
    ) -> NDArray[np.uint32]:
        """The device of each map's context, as far as the stream had told by then."""
        out = np.zeros(len(domains), np.uint32)
        telling = np.isin(self._rare["kind"], (Kind.DOMAIN, Kind.DOMAIN_ATTACH))
        telling &= (self._rare["device"] != 0) & (self._rare["result"] == 0)
        told, told_seq = self._rare.compress(telling), self._rare_seq[telling]
        for number in np.unique(domains).tolist():
            mine = domains == number
            known = self.contexts.live[number].device
            out[mine] = known
            first = np.flatnonzero(told["domain"] == number)
            if not known and len(first):
                out[mine & (seq > told_seq[first[0]])] = told["device"][first[0]]
        return out

    def _match(
        self, ops: list[_Ops], maps: Events, seq: NDArray[np.uint64], devices: NDArray[np.uint32]
    ) -> Pieces:
        """Match maps; completes `devices`: the first DMA address in a context that is one device's
        and no other's tells whose context it is."""
        told: list[tuple[int, tuple[int, int]]] = []
        known = self._model.registry.devices.values()
        groups = {
            one.id: one.limits.group for one in known if one.limits and one.limits.group != NO_GROUP
        }
        pieces = match(self.spans, maps, seq, devices, groups)
        telling = (devices[pieces.asked] == 0) & (pieces.source == DMA)
        if not bool(np.any(telling)):
            return pieces
        rows = self.spans.store.rows.take(pieces.position)
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
        ops.append(_Ops(np.array([when for when, _ in told], np.uint64), self._on_told,
                        [one for _, one in told]))  # fmt: skip
        return match(self.spans, maps, seq, devices, groups) if bool(np.any(again)) else pieces

    def _endings(
        self,
        ops: list[_Ops],
        ended: Rows,
        matched: NDArray[np.uint32],
        bound: NDArray[np.uint32],
    ) -> None:
        """Queue the ends of mappings that have, or get in this batch, ranges on top."""
        if not len(ended):
            return
        ours = np.isin(ended["id"], np.union1d(self.linked(), matched))
        ours |= np.isin(ended["attachment"], bound)
        if self.invalidated or bool(np.any(self._rare["kind"] == Kind.INVALIDATE)):
            ours[:] = True
        rows = ended.compress(ours)
        ops.append(_Ops(rows["end_seq"], self._on_end, rows.tolist()))

    def _reused(
        self,
        ops: list[_Ops],
        fresh: Rows,
        matched: NDArray[np.uint32],
        bound: NDArray[np.uint32],
    ) -> None:
        """Queue new mappings that got addresses of ended ones that ranges may still target."""
        store = self.spans.store
        linked = np.union1d(self.linked(), matched)
        if len(bound):
            mine = np.isin(store.rows["attachment"], bound) & store.alive
            linked = np.union1d(linked, store.rows["id"][mine])
        if not len(linked) or not len(fresh):
            return
        position = store.find(linked.astype(np.uint32))
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
        ops.append(_Ops(np.array(places, np.uint64), self._on_reuse, items))

    # In the order of the stream

    def _on_told(self, row: tuple[int, int]) -> None:
        """A context's map told its device."""
        number, device = row
        context = self.contexts.live.get(number)
        if context is not None:
            context.device = context.device or device

    def _on_piece(self, row: tuple[Any, ...]) -> None:
        """A part of a map in a private domain that is a buffer's."""
        (number, start, size, buffer, attachment, mapping, offset, source, device, mine, tgid,
         ts_ns, seq, translated, pageless) = row  # fmt: skip
        context = self.contexts.live.get(number)
        if context is None:
            return
        if source == PAGES and mine and device != mine:
            # Another device's mapping tells whose pages these are; it is not bypassed by them.
            mapping = attachment = 0
            device = mine
        self._map(
            context,
            Range(number, start, start + size, buffer, attachment, mapping, offset, source, device,
                  tgid or context.tgid, ts_ns, seq),
            nested=translated and source == DMA, pageless=pageless and source == PAGES,
        )  # fmt: skip

    def _map(
        self, context: Context, fresh: Range, *, nested: bool = False, pageless: bool = False
    ) -> None:
        last, size = context.last, fresh.end - fresh.start
        if context.ranges.meets(fresh.start, fresh.end):
            for old, part, _ in self._cut(context, fresh.start, fresh.end, fresh.ts_ns, fresh.tgid):
                self._twice(context, old, part, fresh, 0)
            last = None
        context.bytes += size
        if last is not None and last.end == fresh.start and fresh.follows(last):
            last.end = fresh.end  # one of many calls for one scattered buffer
            self._use(context, last, size, 0, nested, pageless)
            return
        if self._ranges >= MAX_RANGES:
            self.untracked += 1
            return
        context.ranges.add(fresh)
        context.last = fresh
        context.mapped += 1
        self._link(fresh)
        self._use(context, fresh, size, 1, nested, pageless)

    def _use(
        self, context: Context, one: Range, size: int, count: int, nested: bool, pageless: bool
    ) -> None:
        key = (context.id, one.source)
        usage = self.usage.get(key)
        if usage is None:
            usage = self.usage[key] = Usage(first_ns=one.ts_ns)
        usage.count += count
        usage.bytes += size
        usage.last_ns = max(usage.last_ns, one.ts_ns)
        if nested:
            usage.nested += count
            usage.nested_bytes += size
        if pageless:
            usage.pageless += count
        if len(usage.buffers) < _BUFFERS_COUNTED:
            usage.buffers.add(one.buffer)
        if usage.worst is None or one.size > usage.worst.size:
            usage.worst = one

    def _link(self, one: Range) -> None:
        self._ranges += 1
        if one.attachment:
            self._model.registry.undone.in_contexts.add(one.attachment)
        if one.mapping:
            self._on_top.setdefault(one.mapping, set()).add(one)
        self._buffers[one.buffer] = self._buffers.get(one.buffer, 0) + 1

    def _unlink(self, one: Range) -> None:
        self._ranges -= 1
        if one.mapping:
            linked = self._on_top[one.mapping]
            linked.discard(one)
            if not linked:
                del self._on_top[one.mapping]
                self.stale.pop(one.mapping, None)
        left = self._buffers.pop(one.buffer) - 1
        if left:
            self._buffers[one.buffer] = left

    def _cut(
        self, context: Context, start: int, end: int, ts_ns: int, tgid: int
    ) -> list[tuple[Range, Range, list[Range]]]:
        """Take start..end out of a context; as Ranges.cut."""
        context.last = None
        gone = context.ranges.cut(start, end)
        for old, part, rest in gone:
            ended = self.stale.get(old.mapping)
            for one in rest:
                self._link(one)
            self._unlink(old)
            row = self.spans.row(part.mapping) if part.mapping else None
            level1 = (0, 0, 0, 0) if row is None else row[_LEVEL1].item()
            self.removed.append(Removed(part, ts_ns, tgid, *level1))
            self.removals += 1
            if ended is not None:
                self._tell(
                    What.STALE_ENDED, ts_ns, context, part, severe=self.is_nested(part),
                    stale_ns=max(0, ts_ns - ended),
                )  # fmt: skip
        return gone

    def _tell(
        self,
        what: What,
        ts_ns: int,
        context: Context | None,
        part: Range,
        *,
        severe: bool = False,
        detail: str = "",
        **numbers: int | float | str | bool | None,
    ) -> Hazard:
        row = self.spans.row(part.mapping) if part.mapping else None
        owner = context.tgid if context is not None else 0
        hazard = Hazard(
            what, ts_ns, context, part.buffer, part.device, part.mapping,
            int(row["site"]) if row is not None else 0, owner or part.tgid, severe, detail,
            {"address": part.start, "size": part.size, "offset": part.offset, **numbers},
        )  # fmt: skip
        self._hazards.append(hazard)
        return hazard

    def _twice(self, context: Context, old: Range, part: Range, fresh: Range, result: int) -> None:
        again = old.buffer == fresh.buffer and old.offset - old.start == fresh.offset - fresh.start
        if again and not result:
            return  # bound once more to the same: an update of its flags
        self._tell(
            What.TWICE, fresh.ts_ns, context, part, severe=not result,
            detail="one address", result=result, old_buffer=old.buffer, new_buffer=fresh.buffer,
        )  # fmt: skip

    def _on_unmap(self, row: tuple[int, ...]) -> None:
        """An unmap in a private domain.

        What the IOMMU driver returns says little: VT-d counts holes as unmapped
        (drivers/iommu/intel/iommu.c, intel_iommu_unmap()). Where all that was ever mapped in the
        context is known, that decides.
        """
        number, start, size, done, ts_ns, tgid, seq = row
        context = self.contexts.live.get(number)
        if context is None:
            return
        tgid = tgid or context.tgid
        done = min(done, size)
        about = context.ranges.at(start)
        gone = self._cut(context, start, start + done, ts_ns, tgid) if done else []
        met = sum([part.end - part.start for _, part, _ in gone])
        context.other_bytes += met
        if context.born_ns and seq < context.other_seq:
            done = min(met, done)
        if done == size:
            return
        if about is None:
            nowhere = Range(number, start, start + size, 0, 0, 0, 0, UNKNOWN, context.device, tgid,
                            ts_ns, seq)  # fmt: skip
            about = gone[0][1] if gone else nowhere
        self._tell(
            What.PARTIAL if done else What.ELSEWHERE, ts_ns, context, about, severe=not done,
            detail="" if done else "an address where nothing is mapped",
            at=start, asked=size, unmapped=done,
        )  # fmt: skip

    def _on_refused(self, row: tuple[Any, ...]) -> None:
        """A map in a private domain that failed: is something mapped there already?"""
        event = dict(zip(_IOMMU_NAMES, row, strict=True))
        context = self.contexts.live.get(event["domain"])
        if context is not None:
            self._refused_at(context, self._somewhere(context, event), event["result"])

    @staticmethod
    def _somewhere(context: Context, event: Record) -> Range:
        """What an IOMMU event names, of no buffer."""
        return Range(context.id, event["iova"], event["iova"] + event["size"], 0, 0, 0, 0, UNKNOWN,
                     context.device, event["tgid"], event["ts_ns"], 0)  # fmt: skip

    def _refused_at(self, context: Context, fresh: Range, result: int) -> None:
        old = context.ranges.first(fresh.start, fresh.end)
        if old is not None:
            part = old.part(max(fresh.start, old.start), min(fresh.end, old.end))
            self._twice(context, old, part, fresh, result)

    def _on_end(self, row: tuple[Any, ...]) -> None:
        """A level-1 mapping ended."""
        ended = dict(zip(_MAPPING_NAMES, row, strict=True))
        if ended["id"] in self._on_top:
            self.stale[ended["id"]] = ended["end_ns"]
        told = self.invalidated.get(ended["buffer"], ())
        since = next((ts for seq, ts in told if ended["seq"] < seq < ended["end_seq"]), 0)
        attachment = self._model.registry.attachments.get(ended["attachment"])
        if not since or attachment is None or not attachment.flags & Flag.DYNAMIC:
            return
        hazard = Hazard(What.REVOKE_LATE, ended["end_ns"], None, ended["buffer"], ended["device"],
                        ended["id"], ended["site"], ended["tgid"])  # fmt: skip
        hazard.numbers = {"late_ns": max(0, ended["end_ns"] - since), "size": ended["size"]}
        self._hazards.append(hazard)

    def _on_reuse(self, row: tuple[Any, ...]) -> None:
        """A new mapping has DMA addresses of one that ended: does a range still target them?"""
        old, new, low, high, offset = row
        fresh = self.spans.row(new)
        if old not in self.stale or fresh is None:
            return
        ended, ts_ns = self.stale[old], int(fresh["ts_ns"])
        for one in sorted(self.on_top(old), key=lambda one: (one.context, one.start)):
            first, last = max(one.offset, offset), min(one.offset + one.size, offset + high - low)
            if one.source != DMA or first >= last:
                continue
            shift = one.start - one.offset
            hazard = self._tell(
                What.REUSED, ts_ns, self.contexts.find(one.context),
                one.part(first + shift, last + shift), severe=True,
                dma_address=low + first - offset, old_buffer=one.buffer,
                stale_ns=max(0, ts_ns - ended),
            )  # fmt: skip
            hazard.about(fresh)

    def _on_event(self, place: int) -> None:
        kind = int(self._rare["kind"][place])
        row = self._rare[place : place + 1].view(VIEWS[PAYLOAD_OF[Kind(kind)]])
        event = dict(zip(row.dtype.names or (), row[0].item(), strict=True))
        event["seq"] = int(self._rare_seq[place])
        _HANDLERS[kind](self, event)

    def _on_device(self, event: Record) -> None:
        self._domains[event["device"]] = event["domain"]

    def _on_domain(self, event: Record) -> None:
        context = self.contexts.live.get(event["domain"])
        if context is None:
            return
        context.device = context.device or event["device"]
        if context.type == UNMANAGED and not event["flags"] & Flag.PREEXISTING:
            context.born_ns = event["ts_ns"]

    def _on_domain_attach(self, event: Record) -> None:
        device, number, old = event["device"], event["domain"], event["old_domain"]
        context = self.contexts.get(number)
        if event["result"] or not device or context is None:
            return
        if context.type is None:
            self.contexts.domain(number, event["type"])
        context.device = context.device or device
        moves = self.switches.setdefault(device, deque(maxlen=_SWITCHES_KEPT))
        if not moves:
            moves.append((0, 0, old))
        moves.append((event["seq"], event["ts_ns"], number))
        if old and old != number:
            self._switched(context, old, event)

    def _switched(self, context: Context, old: int, event: Record) -> None:
        rows = self.spans.store.rows
        dead = self.spans.store.alive & (rows["device"] == event["device"]) & (rows["space"] == old)
        dead &= (rows["seq"] < event["seq"]) & (rows["end_seq"] > event["seq"])
        place = np.flatnonzero(dead)
        if not len(place):
            return
        worst = rows[place[int(np.argmax(rows["size"][place]))]]
        hazard = Hazard(What.SWITCHED, event["ts_ns"], context, severe=True)
        hazard.about(worst)
        hazard.tgid = context.tgid or event["tgid"]
        hazard.numbers = {
            "mappings": len(place),
            "bytes": int(rows["size"][place].sum()),
            "dma_address": int(worst["address"]),
            "old_domain": old,
            "new_domain": context.id,
        }
        self._hazards.append(hazard)

    def _on_domain_free(self, event: Record) -> None:
        self._free(event["domain"], event)

    def _on_context_free(self, event: Record) -> None:
        self._free(event["context"], event)

    def _free(self, number: int, event: Record) -> None:
        context = self.contexts.free(number, event["ts_ns"])
        if context is not None and len(context.ranges):
            self._cut(context, 0, _EVERYTHING, event["ts_ns"], event["tgid"])

    def _on_context(self, event: Record) -> None:
        """A GPU VM, or news of one."""
        context = self.contexts.get(event["context"])
        if context is None:
            return
        self._describe(context, event)
        if not event["flags"] & Flag.PREEXISTING:
            context.born_ns = context.born_ns or event["ts_ns"]

    def _describe(self, context: Context, event: Record) -> None:
        context.kind, context.provider = GPU_VM, event["provider"]
        context.device = event["device"] or context.device
        context.client = event["client"] or context.client
        owner = event["owner"] or event["tgid"]
        mine = owner == event["tgid"]
        comm = name(event["comm"]) if mine else self._model.processes.comm(owner)
        context.owned_by(owner, comm)

    def _on_name(self, event: Record) -> None:
        context = self.contexts.live.get(event["domain"])
        if context is not None:
            context.name = name(event["text"])

    def _on_level2_map(self, event: Record) -> None:
        context = self.contexts.get(event["context"])
        if context is None or not event["size"]:
            return
        if context.kind is None or not context.tgid:
            self._describe(context, event)
        if not event["buffer"]:
            self._of_attachment(event)
        if not event["buffer"]:
            context.other_bytes += 0 if event["result"] else event["size"]
            return
        mapping = self.spans.of_attachment(event["attachment"], event["seq"])
        source = PAGES if event["provider"] in BY_PAGES else DMA if mapping else UNKNOWN
        start, end = event["address"], min(event["address"] + event["size"], _EVERYTHING)
        fresh = Range(
            context.id, start, end, event["buffer"], event["attachment"], mapping, event["offset"],
            source, event["device"] or context.device, self._doer(context, event),
            event["ts_ns"], event["seq"],
        )  # fmt: skip
        if event["result"]:
            self._refused_at(context, fresh, event["result"])
        else:
            row = self.spans.row(mapping) if mapping else None
            pageless = row is not None and bool(row["pageless"]) and source == PAGES
            self._map(context, fresh, nested=self.is_nested(fresh), pageless=pageless)

    def _on_level2_unmap(self, event: Record) -> None:
        context = self.contexts.live.get(event["context"])
        if context is not None:
            end = min(event["address"] + event["size"], _EVERYTHING)
            doer = self._doer(context, event)
            gone = self._cut(context, event["address"], end, event["ts_ns"], doer)
            if not gone and not event["buffer"] and event["provider"] in TELL_ALL:
                context.other_bytes -= event["size"]

    def _of_attachment(self, event: Record) -> None:
        """A driver that passes a scatterlist names the attachment alone (msm)."""
        attachment = self._model.registry.attachments.get(event["attachment"])
        if attachment is not None and attachment.buffer is not None:
            event["buffer"], event["device"] = attachment.buffer.id, attachment.device

    @staticmethod
    def _doer(context: Context, event: Record) -> int:
        """Whose work it is: a kernel worker's is done for the context's owner, if that is known."""
        return context.tgid if is_worker(name(event["comm"])) else int(event["tgid"])

    def _on_invalidate(self, event: Record) -> None:
        known = self.invalidated.setdefault(event["buffer"], deque(maxlen=_INVALIDATIONS_KEPT))
        known.append((event["seq"], event["ts_ns"]))

    def _on_release(self, event: Record) -> None:
        buffer = event["buffer"]
        if not buffer or buffer not in self._buffers:
            return
        for context in list(self.contexts.live.values()):
            mine = [one for one in context.ranges if one.buffer == buffer]
            if mine:
                self._tell(
                    What.OUTLIVED, event["ts_ns"], context, mine[0], severe=True,
                    ranges=len(mine), bytes=sum(one.size for one in mine),
                )  # fmt: skip

    def _on_fault(self, event: Record) -> None:
        self._hazards.append(explain(self, event))


@dataclass(slots=True)
class _Ops:
    """What is to be done at places of the stream; `items` are handed to `do` one by one."""

    seq: NDArray[np.uint64]
    do: Callable[[Any], None]
    items: list[Any]


def _processes(events: Events) -> NDArray[np.uint32]:
    """The process of each event; 0 for a kernel worker's, whose work is its context's owner's."""
    worker = np.char.startswith(events["comm"], WORKER.encode())
    found: NDArray[np.uint32] = np.where(worker, np.uint32(0), events["tgid"])
    return found


def _run(ops: list[_Ops]) -> None:
    """Everything in the order of the stream."""
    places = np.concatenate([one.seq for one in ops])
    which = np.repeat(np.arange(len(ops)), [len(one.seq) for one in ops]).tolist()
    items = [item for one in ops for item in one.items]
    for index in np.argsort(places, kind="stable").tolist():
        ops[which[index]].do(items[index])


_LEVEL1: Final = ["space", "address", "size", "entries"]
_IOMMU_NAMES: Final = VIEWS["iommu"].names or ()
_MAPPING_NAMES: Final = MAPPING.names or ()

_HANDLERS: Final[dict[int, Callable[[Levels, Record], None]]] = {
    int(Kind.DEVICE): Levels._on_device,
    int(Kind.DOMAIN): Levels._on_domain,
    int(Kind.DOMAIN_ATTACH): Levels._on_domain_attach,
    int(Kind.DOMAIN_FREE): Levels._on_domain_free,
    int(Kind.CONTEXT): Levels._on_context,
    int(Kind.CONTEXT_FREE): Levels._on_context_free,
    int(Kind.NAME_CONTEXT): Levels._on_name,
    int(Kind.LEVEL2_MAP): Levels._on_level2_map,
    int(Kind.LEVEL2_UNMAP): Levels._on_level2_unmap,
    int(Kind.INVALIDATE): Levels._on_invalidate,
    int(Kind.RELEASE): Levels._on_release,
    int(Kind.FAULT): Levels._on_fault,
}
_ORDERED: Final = np.zeros(256, np.bool_)
_ORDERED[list(_HANDLERS)] = True
