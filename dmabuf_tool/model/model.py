# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a trace: `Model.apply` takes a batch and says what it changed.

Rare events make and end objects one by one (registry.py); everything frequent is numpy over the
batch: scatterlists (scatter.py), mappings (mappings.py), counters (tally.py). However a stream is
cut into batches, the state after it is the same. Memory is bounded by what lives in the kernel
and by the caps named in those files; what has ended is folded into counters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.holders import Holders
from dmabuf_tool.model.joins import join_bounces, join_iommu, last_before
from dmabuf_tool.model.levels import Levels
from dmabuf_tool.model.mappings import MAPPING, Mappings
from dmabuf_tool.model.memory import DeviceMemory
from dmabuf_tool.model.processes import Processes
from dmabuf_tool.model.rates import seconds_of
from dmabuf_tool.model.registry import RARE_KINDS, Registry
from dmabuf_tool.model.scatter import SUMMARY, Chunks, summarise
from dmabuf_tool.model.sites import Configure
from dmabuf_tool.model.step import Step, split_calls
from dmabuf_tool.model.store import Rows
from dmabuf_tool.model.tally import Hot, count_repeated, tally
from dmabuf_tool.schema import Batch, Events, Flag, Kind, Losses, view

SKIP_CPU_SYNC: Final = 1 << 5
"""DMA_ATTR_SKIP_CPU_SYNC, include/linux/dma-mapping.h."""
_SUMMARY_NAMES: Final = list(SUMMARY.names or ())
_RARE: Final = np.zeros(256, np.bool_)
_RARE[list(RARE_KINDS)] = True


class Model:
    """Buffers, devices, attachments, mappings, domains and processes of one trace.

    Args:
        configure: gives the limits a user configured for a device.
    """

    def __init__(self, configure: Configure | None = None) -> None:
        self.registry = Registry(configure)
        self.mappings = Mappings()
        self.processes = Processes()
        self.holders = Holders()
        self.levels = Levels(self)
        self.memory = DeviceMemory()
        """Of the traced machine; who knows it puts it here before the first batch."""
        self.losses = Losses()
        self.events = 0
        self.first_ns = 0
        self.last_ns = 0
        """Newest event or moment the model was told of: "now" for rules that wait."""
        self._seq = 0
        self._chunks = Chunks()
        self._bounces: dict[int, tuple[int, int]] = {}
        self._iommu: dict[int, int] = {}
        self._second = 0

    @property
    def untracked(self) -> int:
        """Objects not followed because there were too many, in the probes or here."""
        return (
            self.losses.untracked
            + self.registry.untracked
            + self.registry.sites.untracked
            + self.mappings.untracked
            + self.processes.untracked
            + self.levels.untracked
            + self.levels.contexts.untracked
            + self.levels.spans.untracked
        )

    def apply(self, batch: Batch) -> Step:
        """Take one batch, in the order of the trace."""
        self.registry.sweep()
        self.registry.add_stacks(batch.stacks)
        self.losses = batch.losses
        events = batch.events
        seq = np.arange(self._seq, self._seq + len(events), dtype=np.uint64)
        self._seq += len(events)
        self.events += len(events)
        self._clock(events)

        kinds = np.ascontiguousarray(events["kind"])
        rare = np.flatnonzero(_RARE[np.minimum(kinds, 255)])
        changes = self.registry.apply(events.take(rare), seq[rare])
        detaches = changes.detached()
        calls = self._calls(batch, events, kinds, seq)
        bounces, bounce_seq = _take(events, kinds, seq, "iommu", Kind.BOUNCE)
        join_bounces(calls, bounces, bounce_seq, detaches, self._bounces)
        unmaps, unmap_seq = _take(events, kinds, seq, "map", Kind.UNMAP)
        cpu, cpu_seq = _take(events, kinds, seq, "map", Kind.CPU_BEGIN, Kind.CPU_END)
        iommu, iommu_seq = _take(events, kinds, seq, "iommu", Kind.IOMMU_MAP, Kind.IOMMU_UNMAP)
        join_iommu(calls, iommu.compress(iommu["kind"] == Kind.IOMMU_MAP), self._iommu)
        ended = self.mappings.apply(calls, unmaps, unmap_seq, detaches)
        self._mark_ended(ended, cpu, cpu_seq)
        self.registry.undone.take(ended, self.registry)
        self._repeated(calls, cpu, cpu_seq)
        seconds = seconds_of(events["ts_ns"], self._second)
        self._second = int(seconds[-1]) if len(seconds) else self._second
        hot = Hot(
            calls=calls,
            ended=ended,
            cpu=cpu,
            cpu_seq=cpu_seq,
            pins=_take(events, kinds, seq, "map", Kind.PIN, Kind.UNPIN)[0],
            invalidates=_take(events, kinds, seq, "map", Kind.INVALIDATE)[0],
            iommu=iommu,
            iommu_seq=iommu_seq,
            bounces=bounces,
            bounce_seq=bounce_seq,
            seconds=seconds,
            base=np.uint64(self._seq - len(events)),
        )
        self.processes.see(events)
        tally(self.registry, self.processes, events, hot)
        hazards = self.levels.apply(events, seq, calls, ended, unmaps, unmap_seq, iommu, iommu_seq)
        maps, failed = split_calls(calls)
        return Step(
            model=self,
            events=events,
            seq=seq,
            calls=calls,
            maps=maps,
            failed=failed,
            ended=ended,
            unmaps=unmaps,
            pins=hot.pins,
            cpu=cpu,
            invalidates=hot.invalidates,
            iommu=iommu,
            iommu_seq=iommu_seq,
            exports=changes.exports,
            attaches=changes.attaches,
            detaches=changes.detaches,
            releases=changes.releases,
            released=changes.released,
            hazards=hazards,
        )

    def sweep(self) -> None:
        """Forget what ended in the last batch; `apply` does it too."""
        self.registry.sweep()

    def process_exits(self, exits: list[tuple[int, int]]) -> None:
        """Take exits of processes: (tgid, ts_ns). They may come at any time."""
        self.processes.exits(exits)

    def advance(self, ts_ns: int) -> None:
        """The trace has reached this time, though no event says so."""
        self.last_ns = max(self.last_ns, ts_ns)

    def live_mappings(self) -> Rows:
        """MAPPING rows of what is mapped now, "synced" up to now."""
        rows = self.mappings.live.live()
        rows["synced"] = self._last("last_cpu", rows["buffer"]) > rows["seq"]
        rows["mixed"] = self._last_other(rows) > rows["seq"]
        return rows

    def _clock(self, events: Events) -> None:
        if len(events):
            times = events["ts_ns"]
            first = int(times.min())
            self.first_ns = min(self.first_ns, first) if self.first_ns else first
            self.last_ns = max(self.last_ns, int(times.max()))

    def _calls(
        self, batch: Batch, events: Events, kinds: NDArray[np.uint16], seq: NDArray[np.uint64]
    ) -> Rows:
        """MAPPING rows of the batch's MAP events, joined with entries, attachment and site."""
        index = np.flatnonzero(kinds == Kind.MAP)
        tables, segments = self._chunks.join(batch.tables, batch.segments)
        maps = view(events.take(index), "map")
        rows = np.zeros(len(maps), MAPPING)
        for field in (
            "attachment", "buffer", "device", "tgid", "tid", "ts_ns", "duration_ns", "result",
            "dma_errno", "dma_attrs", "nents", "orig_nents", "size", "address", "flags",
        ):  # fmt: skip
            rows[field] = maps[field]
        rows["id"] = maps["mapping"]
        rows["direction"] = np.minimum(maps["direction"], 255)
        rows["seq"] = seq[index]
        rows["end_stack"] = -1
        self._join_attachments(rows)
        if len(tables):
            new = (maps["result"] == 0) & (maps["copied"] != 0) & (rows["id"] != 0)
            new &= (rows["flags"] & Flag.CACHED) == 0
            ids, first = np.unique(rows["id"][new], return_index=True)
            place = np.flatnonzero(new)[first]
            summary = summarise(tables, segments, ids, rows["nents"][place])
            for field in _SUMMARY_NAMES:
                rows[field][place] = summary[field]
            self._chunks.keep(tables, segments, ids)
            self.levels.take_tables(tables, segments)
        cut = (rows["flags"] & (Flag.CUT | Flag.SEGMENTS_LOST)) != 0
        rows["complete"][cut] = False
        return rows

    def _join_attachments(self, rows: Rows) -> None:
        """Site, and where the event lacks them buffer and device, from the attachment."""
        counts = self.registry.attachment_counts
        if not len(counts) or not len(rows):
            return
        position = counts.find(rows["attachment"])
        known = position >= 0
        # Only an attachment that was there at this place of the stream.
        known &= counts.rows["created"][position] < rows["seq"]
        known &= rows["seq"] < counts.rows["ended"][position]
        at = position[known]
        rows["site"][known] = counts.rows["site"][at]
        domains = self.registry.sites.domains
        rows["domain"] = domains[rows["site"]]
        for field in ("buffer", "device"):
            missing = known & (rows[field] == 0)
            if bool(np.any(missing)):
                rows[field][missing] = counts.rows[field][position[missing]]

    def _last(self, field: str, buffers: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """A BUFFER_COUNTS field of each buffer, up to the batch before; 0 where unknown."""
        return self.registry.buffer_counts.values(field, buffers, 0)

    def _last_other(self, rows: Rows) -> NDArray[np.uint64]:
        """Of each mapping's buffer the map that ended last by devices of the other coherency."""
        coherent = self.registry.sites.effective["coherent"][rows["site"]]
        by_coherent = self._last("last_coherent", rows["buffer"])
        return np.where(coherent, self._last("last_incoherent", rows["buffer"]), by_coherent)

    def _mark_ended(self, ended: Rows, cpu: Events, cpu_seq: NDArray[np.uint64]) -> None:
        """Say what happened to the buffers of ended mappings while these lived."""
        if not len(ended):
            return
        one, buffers, upto = np.uint64(1), ended["buffer"], ended["end_seq"]
        last = last_before(
            cpu["buffer"], cpu_seq + one, buffers, upto, self._last("last_cpu", buffers)
        )
        ended["synced"] = last > ended["seq"]
        coherent = self.registry.sites.effective["coherent"][ended["site"]]
        if bool(np.all(coherent)):
            return
        other = self._last_other(ended)
        for kind in (True, False):
            theirs = ended.compress(coherent == kind)
            last = last_before(
                theirs["buffer"], theirs["end_seq"], buffers, upto, other, theirs["seq"] + one
            )
            mine = coherent != kind
            ended["mixed"][mine] = (last > ended["seq"])[mine]

    def _repeated(self, calls: Rows, cpu: Events, cpu_seq: NDArray[np.uint64]) -> None:
        """Count maps by non-coherent devices that had nothing to write back."""
        coherent = self.registry.sites.effective["coherent"]
        if bool(np.all(coherent)):
            return
        skipped = (calls["dma_attrs"] & SKIP_CPU_SYNC) != 0
        cached = (calls["flags"] & Flag.CACHED) != 0
        chosen = (calls["result"] == 0) & ~coherent[calls["site"]] & ~skipped & ~cached
        rows = calls.compress(chosen)
        if len(rows):
            before = self._last("last_cpu", rows["buffer"])
            one = np.uint64(1)
            last = last_before(cpu["buffer"], cpu_seq + one, rows["buffer"], rows["seq"], before)
            count_repeated(self.registry, rows, last)


def _take(
    events: Events,
    kinds: NDArray[np.uint16],
    seq: NDArray[np.uint64],
    payload: str,
    *wanted: Kind,
) -> tuple[Events, NDArray[np.uint64]]:
    """Events of some kinds under a payload's names, with their sequence numbers."""
    chosen = kinds == wanted[0]
    for kind in wanted[1:]:
        chosen |= kinds == kind
    index = np.flatnonzero(chosen)
    return view(events.take(index), payload), seq[index]
