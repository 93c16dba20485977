# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of contexts, in order: domains and GPU VMs that come, go and change, GPU VMs' maps, what
happens to buffers below them, faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.contexts import GPU_VM, TELL_ALL, UNMANAGED, Context, is_worker
from dmabuf_tool.model.faults import Meter, explain, unexplained
from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.level2 import Level2
from dmabuf_tool.model.level_state import LevelState
from dmabuf_tool.model.matching import DMA, PAGES, UNKNOWN
from dmabuf_tool.model.objects import name
from dmabuf_tool.model.ranges import Range
from dmabuf_tool.schema import PAYLOAD_OF, VIEWS, Events, Flag, Kind

BY_PAGES: Final = frozenset({6})
"""Providers (contexts.PROVIDERS) that fill their tables from sg_phys() in all versions: msm
(drivers/gpu/drm/msm/msm_iommu.c, msm_iommu_pagetable_map())."""

_SWITCHES_KEPT: Final = 256
_INVALIDATIONS_KEPT: Final = 16
_EVERYTHING: Final = 1 << 64

Record = dict[str, Any]
"""One event as names and Python values, with "seq", its place in the stream."""


class LevelEvents:
    """Changes of `LevelState` by events that are few."""

    def __init__(self, state: LevelState, level2: Level2) -> None:
        self._state = state
        self._level2 = level2
        self._meters: dict[tuple[int, int], Meter] = {}
        """Of faults, by device or requester."""

    def on_event(self, row: tuple[Events, int]) -> None:
        """One event of KINDS, as an array of one, and its place in the stream."""
        raw, seq = row
        kind = int(raw["kind"][0])
        payload = raw.view(VIEWS[PAYLOAD_OF[Kind(kind)]])
        event = dict(zip(payload.dtype.names or (), payload[0].item(), strict=True))
        event["seq"] = seq
        _HANDLERS[kind](self, event)

    def _on_device(self, event: Record) -> None:
        self._state.domains[event["device"]] = event["domain"]

    def _on_domain(self, event: Record) -> None:
        context = self._state.contexts.live.get(event["domain"])
        if context is None:
            return
        context.device = context.device or event["device"]
        if context.type == UNMANAGED and not event["flags"] & Flag.PREEXISTING:
            context.born_ns = event["ts_ns"]

    def _on_domain_attach(self, event: Record) -> None:
        device, number, old = event["device"], event["domain"], event["old_domain"]
        context = self._state.contexts.get(number)
        if event["result"] or not device or context is None:
            return
        if context.type is None:
            self._state.contexts.domain(number, event["type"])
        context.device = context.device or device
        moves = self._state.switches.setdefault(device, deque(maxlen=_SWITCHES_KEPT))
        if not moves:
            moves.append((0, 0, old))
        moves.append((event["seq"], event["ts_ns"], number))
        if old and old != number:
            self._switched(context, old, event)

    def _switched(self, context: Context, old: int, event: Record) -> None:
        store = self._state.spans.store
        rows = store.rows
        dead = store.alive & (rows["device"] == event["device"]) & (rows["space"] == old)
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
        self._state.hazards.append(hazard)

    def _on_domain_free(self, event: Record) -> None:
        self._free(event["domain"], event)

    def _on_context_free(self, event: Record) -> None:
        self._free(event["context"], event)

    def _free(self, number: int, event: Record) -> None:
        context = self._state.contexts.free(number, event["ts_ns"])
        if context is not None and len(context.ranges):
            self._level2.cut(context, 0, _EVERYTHING, event["ts_ns"], event["tgid"])

    def _on_context(self, event: Record) -> None:
        """A GPU VM, or news of one."""
        context = self._state.contexts.get(event["context"])
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
        comm = name(event["comm"]) if mine else self._state.model.processes.comm(owner)
        context.owned_by(owner, comm)

    def _on_device_name(self, event: Record) -> None:
        if event["device"] in self._state.model.registry.devices:
            self._state.names[event["device"]] = name(event["text"])

    def _on_name(self, event: Record) -> None:
        context = self._state.contexts.live.get(event["domain"])
        if context is not None:
            context.name = name(event["text"])

    def _on_level2_map(self, event: Record) -> None:
        context = self._state.contexts.get(event["context"])
        if context is None or not event["size"]:
            return
        if context.kind is None or not context.tgid:
            self._describe(context, event)
        if not event["buffer"]:
            self._of_attachment(event)
        if not event["buffer"]:
            context.other_bytes += 0 if event["result"] else event["size"]
            return
        mapping = self._state.spans.of_attachment(event["attachment"], event["seq"])
        source = PAGES if event["provider"] in BY_PAGES else DMA if mapping else UNKNOWN
        start, end = event["address"], min(event["address"] + event["size"], _EVERYTHING)
        fresh = Range(
            context.id, start, end, event["buffer"], event["attachment"], mapping, event["offset"],
            source, event["device"] or context.device, self._doer(context, event),
            event["ts_ns"], event["seq"],
        )  # fmt: skip
        if event["result"]:
            self._level2.refused(context, fresh, event["result"])
        else:
            row = self._state.spans.row(mapping) if mapping else None
            pageless = row is not None and bool(row["pageless"]) and source == PAGES
            self._level2.map(context, fresh, nested=self._state.is_nested(fresh), pageless=pageless)

    def _on_level2_unmap(self, event: Record) -> None:
        context = self._state.contexts.live.get(event["context"])
        if context is not None:
            end = min(event["address"] + event["size"], _EVERYTHING)
            doer = self._doer(context, event)
            gone = self._level2.cut(context, event["address"], end, event["ts_ns"], doer)
            if not gone and not event["buffer"] and event["provider"] in TELL_ALL:
                context.other_bytes -= event["size"]

    def _of_attachment(self, event: Record) -> None:
        """A driver that passes a scatterlist names the attachment alone (msm)."""
        attachment = self._state.model.registry.attachments.get(event["attachment"])
        if attachment is not None and attachment.buffer is not None:
            event["buffer"], event["device"] = attachment.buffer.id, attachment.device

    @staticmethod
    def _doer(context: Context, event: Record) -> int:
        """Whose work it is: a kernel worker's is done for the context's owner, if that is known."""
        return context.tgid if is_worker(name(event["comm"])) else int(event["tgid"])

    def _on_invalidate(self, event: Record) -> None:
        told = self._state.invalidated
        known = told.setdefault(event["buffer"], deque(maxlen=_INVALIDATIONS_KEPT))
        known.append((event["seq"], event["ts_ns"]))

    def _on_release(self, event: Record) -> None:
        buffer = event["buffer"]
        if not buffer or buffer not in self._state.of:
            return
        for context in list(self._state.contexts.live.values()):
            mine = [one for one in context.ranges if one.buffer == buffer]
            if mine:
                self._state.tell(
                    What.OUTLIVED, event["ts_ns"], context, mine[0], severe=True,
                    ranges=len(mine), bytes=sum(one.size for one in mine),
                )  # fmt: skip

    def _on_fault(self, event: Record) -> None:
        meter = self._meters.setdefault((event["device"], event["owner"]), Meter())
        told = explain if meter.lets(event["ts_ns"]) else unexplained
        self._state.hazards.append(told(self._state, event))


_HANDLERS: Final[dict[int, Callable[[LevelEvents, Record], None]]] = {
    int(Kind.DEVICE): LevelEvents._on_device,
    int(Kind.DOMAIN): LevelEvents._on_domain,
    int(Kind.DOMAIN_ATTACH): LevelEvents._on_domain_attach,
    int(Kind.DOMAIN_FREE): LevelEvents._on_domain_free,
    int(Kind.CONTEXT): LevelEvents._on_context,
    int(Kind.CONTEXT_FREE): LevelEvents._on_context_free,
    int(Kind.NAME_CONTEXT): LevelEvents._on_name,
    int(Kind.NAME_DEVICE): LevelEvents._on_device_name,
    int(Kind.LEVEL2_MAP): LevelEvents._on_level2_map,
    int(Kind.LEVEL2_UNMAP): LevelEvents._on_level2_unmap,
    int(Kind.INVALIDATE): LevelEvents._on_invalidate,
    int(Kind.RELEASE): LevelEvents._on_release,
    int(Kind.FAULT): LevelEvents._on_fault,
}
KINDS: Final = np.zeros(256, np.bool_)
"""Which kinds of events `on_event` takes."""
KINDS[list(_HANDLERS)] = True
