# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters per buffer, attachment, device, process and domain, added to by whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.joins import bounced
from dmabuf_tool.model.processes import Processes
from dmabuf_tool.model.rates import count_peaks
from dmabuf_tool.model.registry import Registry
from dmabuf_tool.model.store import Rows, Store, add_counts, add_sums, set_latest
from dmabuf_tool.schema import Events, Flag, Kind


@dataclass(frozen=True, slots=True)
class Hot:
    """The frequent events of a batch; `calls` and `ended` are MAPPING rows.

    `seconds` are of all events of the batch (rates.seconds_of), `base` is the sequence number of
    the first.
    """

    calls: Rows
    ended: Rows
    cpu: Events
    cpu_seq: NDArray[np.uint64]
    pins: Events
    invalidates: Events
    iommu: Events
    iommu_seq: NDArray[np.uint64]
    bounces: Events
    bounce_seq: NDArray[np.uint64]
    seconds: NDArray[np.uint64]
    base: np.uint64

    def second(self, seq: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The seconds of the events with these sequence numbers."""
        return self.seconds[(seq - self.base).astype(np.intp)]


def mapped_bytes(calls: Rows) -> NDArray[np.uint64]:
    """Bytes each call newly mapped: 0 for failed ones and cached tables.

    The sum of DMA lengths where all entries were seen, else the buffer's size.
    """
    size = np.where(calls["complete"], calls["total"], calls["size"])
    new = (calls["result"] == 0) & ((calls["flags"] & Flag.CACHED) == 0)
    return np.where(new, size, 0).astype(np.uint64)


def tally(registry: Registry, processes: Processes, events: Events, hot: Hot) -> None:
    """Add a batch to all counters."""
    if len(hot.calls):
        size = mapped_bytes(hot.calls)
        good = hot.calls["result"] == 0
        _maps(registry.buffer_counts, hot.calls["buffer"], good, size)
        _maps(registry.attachment_counts, hot.calls["attachment"], good, size)
        _maps(registry.device_counts, hot.calls["device"], good, size)
        _maps(registry.domain_counts, hot.calls["domain"], good, size, failed=False)
        _maps(processes.counts, hot.calls["tgid"], good, size)
        _map_history(registry, hot, good)
    _attachments(registry.attachment_counts, events, hot)
    _buffers(registry, events, hot)
    _domains(registry.domain_counts, hot)
    if len(hot.bounces):
        rows, position, known = _place(registry.device_counts, hot.bounces["device"])
        add_sums(rows["bounces"], position, bounced(hot.bounces)[known])
        size = hot.bounces["size"][known]
        add_sums(rows["bounced_bytes"], position, size)
        count_peaks(rows, position, hot.second(hot.bounce_seq[known]), size)


def _place(
    store: Store, ids: NDArray[np.uint32]
) -> tuple[Rows, NDArray[np.intp], NDArray[np.bool_]]:
    """The store's rows, positions of the ids it knows, and which they are."""
    position = store.find(ids)
    known = position >= 0
    return store.rows, position[known], known


def _maps(
    store: Store,
    ids: NDArray[np.uint32],
    good: NDArray[np.bool_],
    size: NDArray[np.uint64],
    *,
    failed: bool = True,
) -> None:
    rows, position, known = _place(store, ids)
    good = good[known]
    add_counts(rows["maps"], position[good])
    add_sums(rows["bytes"], position, size[known])
    if failed and not bool(np.all(good)):
        add_counts(rows["failed_maps"], position[~good])


def _map_history(registry: Registry, hot: Hot, good: NDArray[np.bool_]) -> None:
    """When buffers and attachments were mapped, how, and how often a second."""
    calls = hot.calls.compress(good)
    after = calls["seq"] + np.uint64(1)
    rows, position, known = _place(registry.buffer_counts, calls["buffer"])
    _set_first(rows["first_map"], position, after[known], np.uint64(0))
    rows, position, known = _place(registry.attachment_counts, calls["attachment"])
    made = (calls["flags"][known] & Flag.CACHED) == 0
    add_counts(rows["tables"], position[made])
    count_peaks(rows, position, hot.second(calls["seq"][known]))
    _set_first(rows["first_map"], position, after[known], np.uint64(0))
    _set_first(rows["direction"], position, calls["direction"][known], np.uint8(255))


def _set_first(
    target: NDArray[Any], position: NDArray[np.intp], values: NDArray[Any], unset: np.generic
) -> None:
    """target[position] = values where it is still `unset`; of repeated positions the first."""
    new = target[position] == unset
    if bool(np.any(new)):
        target[position[new][::-1]] = values[new][::-1]


def count_repeated(registry: Registry, calls: Rows, last_cpu: NDArray[np.uint64]) -> None:
    """Count maps whose cache maintenance did nothing: no CPU access since the map before.

    Args:
        calls: MAPPING rows of maps by non-coherent devices, in order.
        last_cpu: sequence number of the buffer's last CPU access before each + 1.
    """
    store = registry.attachment_counts
    position = store.find(calls["attachment"])
    calls, last_cpu = calls.compress(position >= 0), last_cpu[position >= 0]
    position = position[position >= 0]
    order = np.lexsort((calls["seq"], position))
    position, after = position[order], calls["seq"][order] + np.uint64(1)
    before = np.where(
        np.concatenate([[False], position[1:] == position[:-1]]),
        np.roll(after, 1),
        store.rows["last_map"][position],
    )
    idle = (before != 0) & (last_cpu[order] <= before)
    add_counts(store.rows["repeated"], position[idle])
    set_latest(store.rows["last_map"], position, after)


def _attachments(store: Store, events: Events, hot: Hot) -> None:
    if not len(store):
        return
    rows = store.rows
    if len(hot.pins):
        # The core's own unpins inside unmap have no pin event: it calls the exporter's op.
        asked = (hot.pins["result"] == 0) & ((hot.pins["flags"] & int(Flag.INSIDE)) == 0)
        for kind, step in ((Kind.PIN, 1), (Kind.UNPIN, -1)):
            chosen = hot.pins[(hot.pins["kind"] == kind) & asked]
            _, position, _ = _place(store, chosen["attachment"])
            np.add.at(rows["pins"], position, step)
    unknown = (events["kind"] == Kind.UNMAP) & ((events["flags"] & int(Flag.UNKNOWN_TABLE)) != 0)
    if bool(np.any(unknown)):
        _, position, _ = _place(store, events["attachment"][unknown])
        add_counts(rows["unknown_unmaps"], position)
    # DEVICE events hold the IOMMU group in this field.
    with_one = (events["attachment"] != 0) & (events["kind"] != Kind.DEVICE)
    position = store.find(events["attachment"][with_one])
    known = position >= 0
    position = position[known]
    set_latest(rows["last_ns"], position, events["ts_ns"][with_one][known])
    foreign = events["tgid"][with_one][known] != rows["tgid"][position]
    rows["shared"][position[foreign]] = True


def _buffers(registry: Registry, events: Events, hot: Hot) -> None:
    store = registry.buffer_counts
    if not len(store):
        return
    rows = store.rows
    if len(hot.cpu):
        _, position, known = _place(store, hot.cpu["buffer"])
        add_counts(rows["cpu_accesses"], position)
        count_peaks(rows, position, hot.second(hot.cpu_seq[known]))
        worked = hot.cpu["result"][known] == 0
        step = np.where(hot.cpu["kind"][known] == Kind.CPU_BEGIN, 1, -1)
        np.add.at(rows["cpu_begins"], position[worked], step[worked])
        set_latest(rows["last_cpu"], position, hot.cpu_seq[known] + np.uint64(1))
    if len(hot.ended):
        coherent = registry.sites.effective["coherent"][hot.ended["site"]]
        _, position, known = _place(store, hot.ended["buffer"])
        began = hot.ended["seq"][known] + np.uint64(1)
        for field, some in (("last_coherent", coherent), ("last_incoherent", ~coherent)):
            set_latest(rows[field], position[some[known]], began[some[known]])
    if len(hot.invalidates):
        _, position, _ = _place(store, hot.invalidates["buffer"])
        add_counts(rows["invalidates"], position)
    # The return of a release comes behind the buffer's end.
    buffers = np.where(events["kind"] == Kind.RELEASED, np.uint32(0), events["buffer"])
    _, position, known = _place(store, buffers)
    set_latest(rows["last_ns"], position, events["ts_ns"][known])
    _users(registry, buffers, events["tgid"], position, known)


def _users(
    registry: Registry,
    buffers: NDArray[np.uint32],
    tgids: NDArray[np.uint32],
    position: NDArray[np.intp],
    known: NDArray[np.bool_],
) -> None:
    """Note which processes used a buffer; only a change of process costs Python."""
    rows = registry.buffer_counts.rows
    buffers, tgids = buffers[known], tgids[known]
    other = rows["last_tgid"][position] != tgids
    if not bool(np.any(other)):
        return
    pairs = (buffers[other].astype(np.uint64) << np.uint64(32)) | tgids[other]
    for pair in np.unique(pairs).tolist():
        buffer = registry.buffers.get(pair >> 32)
        if buffer is not None and len(buffer.processes) < 256:
            buffer.processes.add(pair & 0xFFFF_FFFF)
    rows["last_tgid"][position] = tgids


def _domains(store: Store, hot: Hot) -> None:
    iommu = hot.iommu
    if not len(iommu):
        return
    ours = (iommu["kind"] == Kind.IOMMU_UNMAP) & ((iommu["flags"] & int(Flag.INSIDE)) != 0)
    rows, position, known = _place(store, iommu["domain"][ours])
    count_peaks(rows, position, hot.second(hot.iommu_seq[ours][known]))
    for kind, field in ((Kind.IOMMU_MAP, "iommu_maps"), (Kind.IOMMU_UNMAP, "iommu_unmaps")):
        rows, position, _ = _place(store, iommu["domain"][iommu["kind"] == kind])
        add_counts(rows[field], position)
