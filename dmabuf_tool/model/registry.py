# SPDX-License-Identifier: GPL-2.0-or-later
"""Buffers, devices, attachments and domains: made and ended by rare events, one event at a time.

What ended in a batch stays reachable until the next one (`sweep`), so that the batch's maps and
the rules find it; then a buffer goes into a bounded list of ended ones. Sequence numbers of
birth and end keep the order of the stream where a batch is looked at as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.constraints import Limits
from dmabuf_tool.model.frameworks import Importer, importer_of
from dmabuf_tool.model.mappings import Detaches, End
from dmabuf_tool.model.objects import (
    ATTACHMENT_COUNTS,
    BUFFER_COUNTS,
    DEVICE_COUNTS,
    DOMAIN_COUNTS,
    NEVER,
    Attachment,
    Buffer,
    Device,
    Domain,
    Imports,
    Releases,
    name,
)
from dmabuf_tool.model.sites import Configure, Sites
from dmabuf_tool.model.store import Store
from dmabuf_tool.model.undone import Undone
from dmabuf_tool.model.union import tighter
from dmabuf_tool.schema import NAME_KINDS, PAYLOAD_OF, VIEWS, Events, Flag, Kind

MAX_OBJECTS: Final = 1 << 17
"""Live buffers, live attachments, devices and domains, each; the probes hold half of it."""
MAX_STACKS: Final = 1 << 14
MAX_EXPORTERS: Final = 4096
ENDED_BUFFERS: Final = 4096
ENDED_ATTACHMENTS: Final = 4096

RARE_KINDS: Final = (
    Kind.BUFFER,
    Kind.EXPORT,
    Kind.RELEASE,
    Kind.ATTACH,
    Kind.DETACH,
    Kind.DEVICE,
    Kind.DEVICE_GONE,
    Kind.DOMAIN,
    Kind.DOMAIN_ATTACH,
    Kind.DOMAIN_FREE,
    Kind.RELEASED,
    *NAME_KINDS,
)
_VIEW_OF: Final = {int(kind): VIEWS[PAYLOAD_OF[kind]] for kind in RARE_KINDS}

Record = Mapping[str, Any]
"""One event as names and Python values."""


@dataclass(slots=True)
class Changes:
    """What rare events of one batch did."""

    exports: list[Buffer] = field(default_factory=list)
    attaches: list[Attachment] = field(default_factory=list)
    """Refused ones too."""
    detaches: list[Attachment] = field(default_factory=list)
    releases: list[Buffer] = field(default_factory=list)
    released: list[Buffer] = field(default_factory=list)
    """Ended ones whose release returned; their duration is known now."""
    ends: dict[int, tuple[int, int, int, End]] = field(default_factory=dict)
    """Attachment id -> sequence number, ts_ns, tid, how; also of attachments never seen made."""

    def detached(self) -> Detaches:
        """`ends` as columns, by id."""
        ids = sorted(self.ends)
        rows = [self.ends[number] for number in ids]
        return Detaches(
            np.array(ids, np.uint32),
            np.array([row[0] for row in rows], np.uint64),
            np.array([row[1] for row in rows], np.uint64),
            np.array([row[2] for row in rows], np.uint32),
            np.array([row[3] for row in rows], np.uint8),
        )


class Registry:
    """The objects of a trace by id."""

    def __init__(self, configure: Configure | None = None) -> None:
        self.buffers: dict[int, Buffer] = {}
        self.attachments: dict[int, Attachment] = {}
        self.devices: dict[int, Device] = {}
        self.domains: dict[int, Domain] = {}
        self.ended_buffers: dict[int, Buffer] = {}
        """By id, the oldest end first; no more than ENDED_BUFFERS."""
        self.ended_attachments: deque[Attachment] = deque(maxlen=ENDED_ATTACHMENTS)
        self.releases: dict[tuple[str, int], Releases] = {}
        """By exporter and the process that exported."""
        self.released = 0
        """Buffers released since the start, those no longer kept too."""
        self.sites = Sites(configure)
        self.buffer_counts = Store(BUFFER_COUNTS)
        self.attachment_counts = Store(ATTACHMENT_COUNTS)
        self.device_counts = Store(DEVICE_COUNTS)
        self.domain_counts = Store(DOMAIN_COUNTS)
        self.undone = Undone()
        self.untracked = 0
        self._ended_counts: dict[int, np.void] = {}
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._importers: dict[int, Importer | None] = {}
        self._swept = Changes()

    def add_stacks(self, stacks: Mapping[int, tuple[str, ...]]) -> None:
        """Take call stacks seen for the first time."""
        for key, frames in stacks.items():
            if len(self._stacks) < MAX_STACKS:
                self._stacks[key] = frames
                self._importers[key] = importer_of(frames)

    def caller(self, stack: int) -> Importer | None:
        """Who called into dma-buf in a call stack; None if it was not taken or not named."""
        return self._importers.get(stack)

    def apply(self, events: Events, seq: NDArray[np.uint64]) -> Changes:
        """Take the rare events of a batch, in order. `seq` (n,) are their sequence numbers."""
        changes = Changes()
        for event, number in zip(events, seq.tolist(), strict=True):
            kind = int(event["kind"])
            view = event.view(_VIEW_OF[kind])
            record = dict(zip(view.dtype.names, view.item(), strict=True))
            _HANDLERS[kind](self, record, number, changes)
        self._swept = changes
        return changes

    def sweep(self) -> None:
        """Forget what ended in the last batch."""
        changes, self._swept = self._swept, Changes()
        for number in changes.ends:
            attachment = self.attachments.pop(number, None)
            if attachment is not None:
                self.ended_attachments.append(attachment)
                if attachment.buffer is not None:
                    attachment.buffer.attached.pop(number, None)
        _drop(self.attachment_counts, list(changes.ends))
        self.undone.drop(changes.ends)
        for buffer in changes.releases:
            if self.buffers.pop(buffer.id, None) is not None:
                self._retire(buffer)
        _drop(self.buffer_counts, [buffer.id for buffer in changes.releases])

    def counts_of(self, buffer: int) -> np.void | None:
        """The BUFFER_COUNTS row of a buffer that lives or is still kept."""
        position = self.buffer_counts.position(buffer)
        if position >= 0:
            row: np.void = self.buffer_counts.rows[position]
            return row
        return self._ended_counts.get(buffer)

    def known_buffer(self, number: int) -> Buffer | None:
        """A buffer by id that lives or is still kept."""
        return self.buffers.get(number) or self.ended_buffers.get(number)

    def device(self, number: int) -> Device | None:
        """A device by id, made at first sight; None for 0 and where there are too many."""
        return self._device(number) if number else None

    def _retire(self, buffer: Buffer) -> None:
        self.released += 1
        if len(self.ended_buffers) == ENDED_BUFFERS:
            oldest = next(iter(self.ended_buffers))
            del self.ended_buffers[oldest]
            self._ended_counts.pop(oldest, None)
        position = self.buffer_counts.position(buffer.id)
        if position >= 0:
            self._ended_counts[buffer.id] = self.buffer_counts.rows[position].copy()
        self.ended_buffers[buffer.id] = buffer

    def _buffer(self, record: Record, *, old: bool) -> Buffer | None:
        number = record["buffer"]
        buffer = self.buffers.get(number)
        if buffer is None:
            if not number or len(self.buffers) >= MAX_OBJECTS:
                self.untracked += bool(number)
                return None
            buffer = self.buffers[number] = Buffer(number, preexisting=old)
            _new_row(self.buffer_counts, number)
        if "exporter" in record:
            buffer.size = record["size"] or buffer.size
            buffer.ino = record["ino"] or buffer.ino
            buffer.exporter = name(record["exporter"]) or buffer.exporter
        return buffer

    def _device(self, number: int) -> Device | None:
        device = self.devices.get(number)
        if device is None:
            if len(self.devices) >= MAX_OBJECTS:
                self.untracked += 1
                return None
            device = self.devices[number] = Device(number)
            _new_row(self.device_counts, number)
        return device

    def domain(self, number: int) -> Domain | None:
        """A domain by id, made at first sight; None for 0 and where there are too many."""
        if not number:
            return None
        domain = self.domains.get(number)
        if domain is None:
            if len(self.domains) >= MAX_OBJECTS:
                self.untracked += 1
                return None
            domain = self.domains[number] = Domain(number)
            _new_row(self.domain_counts, number)
        return domain

    def _on_buffer(self, record: Record, seq: int, changes: Changes) -> None:
        self._buffer(record, old=True)

    def _on_export(self, record: Record, seq: int, changes: Changes) -> None:
        if record["result"]:
            return
        buffer = self._buffer(record, old=False)
        if buffer is not None:
            buffer.exported_ns = record["ts_ns"]
            buffer.tgid = record["tgid"]
            changes.exports.append(buffer)

    def _on_release(self, record: Record, seq: int, changes: Changes) -> None:
        buffer = self.buffers.get(record["buffer"])
        if buffer is None or buffer.released_ns:
            return
        buffer.released_ns = record["ts_ns"]
        changes.releases.append(buffer)
        for number in buffer.attached:
            # No buffer is released with attachments: their detach was lost.
            self._end(number, record, seq, End.RELEASE, changes)

    def _on_released(self, record: Record, seq: int, changes: Changes) -> None:
        number = record["buffer"]
        buffer = self.known_buffer(number)
        if buffer is not None and buffer.released_ns and not buffer.release_duration_ns:
            buffer.release_duration_ns = record["duration_ns"]
            changes.released.append(buffer)
            self._count_release(buffer)

    def _count_release(self, buffer: Buffer) -> None:
        key = (buffer.exporter, buffer.tgid)
        known = self.releases.get(key)
        if known is None:
            if len(self.releases) >= MAX_EXPORTERS:
                return
            known = self.releases[key] = Releases(buffer)
        known.add(buffer)

    def _on_attach(self, record: Record, seq: int, changes: Changes) -> None:
        buffer = self._buffer(record, old=True)
        device = self.device(record["device"])
        tgid = 0 if record["flags"] & Flag.PREEXISTING else record["tgid"]
        exporter = buffer.exporter if buffer is not None else name(record["exporter"])
        site = self.sites.intern(device, self._importers.get(record["stack"]), exporter, tgid)
        attachment = Attachment(
            id=record["attachment"],
            buffer=buffer,
            device=record["device"],
            site=site,
            tgid=tgid,
            tid=record["tid"],
            ts_ns=record["ts_ns"],
            duration_ns=record["duration_ns"],
            flags=record["flags"],
            result=record["result"],
            seq=seq,
            stack=self._stacks.get(record["stack"], ()),
        )
        if buffer is not None and device is not None:
            buffer.devices.add(device.id)
        changes.attaches.append(attachment)
        if attachment.result or not attachment.id or attachment.id in self.attachments:
            return
        if len(self.attachments) >= MAX_OBJECTS:
            self.untracked += 1
            return
        if buffer is not None:
            attachment.others = tuple(
                one.site for one in buffer.attached.values() if not one.detached_ns
            )
            attachment.tighter = tighter(site, attachment.others)
            buffer.together = (*attachment.others, site)
            buffer.attachments += 1
            buffer.attached[attachment.id] = attachment
            _count_import(buffer, attachment)
        if device is not None:
            device.attachments += 1
        self.attachments[attachment.id] = attachment
        row = np.zeros(1, ATTACHMENT_COUNTS)
        row["id"], row["device"], row["site"] = attachment.id, attachment.device, site.id
        row["buffer"], row["tgid"] = record["buffer"], tgid
        row["preexisting"] = bool(attachment.flags & Flag.PREEXISTING)
        row["created"], row["ended"], row["direction"] = seq, NEVER, 255
        row["last_ns"] = attachment.ts_ns
        self.attachment_counts.add(row)

    def _on_detach(self, record: Record, seq: int, changes: Changes) -> None:
        cached = record["flags"] & Flag.IN_ATTACH
        end = End.DETACH_CACHED if cached else End.DETACH
        self._end(record["attachment"], record, seq, end, changes)

    def _end(self, number: int, record: Record, seq: int, end: End, changes: Changes) -> None:
        if not number or number in changes.ends:
            return
        changes.ends[number] = (seq, record["ts_ns"], record["tid"], end)
        attachment = self.attachments.get(number)
        if attachment is not None:
            attachment.detached_ns = record["ts_ns"]
            changes.detaches.append(attachment)
            position = self.attachment_counts.position(number)
            self.attachment_counts.rows["ended"][position] = seq

    def _on_device(self, record: Record, seq: int, changes: Changes) -> None:
        device = self.device(record["device"])
        if device is None:
            return
        flags = record["flags"]
        device.domain = record["domain"]
        self.domain(record["domain"])
        device.limits = Limits(
            device=device.id,
            bus=device.bus,
            driver=device.driver,
            dma_mask=record["dma_mask"],
            coherent_dma_mask=record["coherent_dma_mask"],
            bus_dma_limit=record["bus_dma_limit"],
            segment_boundary_mask=record["segment_boundary_mask"],
            max_segment_size=record["max_segment_size"],
            min_align_mask=record["min_align_mask"],
            has_parms=bool(flags & Flag.HAS_PARMS),
            has_mask=bool(flags & Flag.HAS_MASK),
            coherent=bool(flags & Flag.COHERENT),
            translated=bool(flags & Flag.TRANSLATED),
            group=record["attachment"],
            domain=record["domain"],
        )

    def _on_device_gone(self, record: Record, seq: int, changes: Changes) -> None:
        device = self.devices.get(record["device"])
        if device is not None:
            device.gone = True

    def _on_domain(self, record: Record, seq: int, changes: Changes) -> None:
        domain = self.domain(record["domain"])
        if domain is not None:
            domain.type = record["type"]
            domain.group = record["group"]
            domain.pgsize_bitmap = record["pgsize_bitmap"]
            domain.aperture_start = record["aperture_start"]
            domain.aperture_end = record["aperture_end"]

    def _on_domain_attach(self, record: Record, seq: int, changes: Changes) -> None:
        domain = self.domain(record["domain"])
        if domain is not None and domain.type is None:
            domain.type = record["type"]
            domain.group = record["group"]
        device = self.device(record["device"])
        if device is not None and not record["result"]:
            device.domain = record["domain"]

    def _on_domain_free(self, record: Record, seq: int, changes: Changes) -> None:
        domain = self.domains.get(record["domain"])
        if domain is not None:
            domain.freed_ns = record["ts_ns"]

    def _on_name(self, record: Record, seq: int, changes: Changes) -> None:
        text = name(record["text"])
        if record["flags"] & Flag.CUT:
            text += "..."
        kind = record["kind"]
        if kind == Kind.NAME_BUFFER:
            buffer = self._buffer(record, old=True)
            if buffer is not None:
                buffer.name = text
            return
        device = self.device(record["device"])
        if device is None:
            return
        if kind == Kind.NAME_DEVICE:
            device.name = text
        elif kind == Kind.NAME_DRIVER:
            device.driver = text
        elif kind == Kind.NAME_BUS:
            device.bus = text


def _count_import(buffer: Buffer, attachment: Attachment) -> None:
    known = buffer.imports.get(attachment.device)
    if known is None:
        buffer.imports[attachment.device] = Imports(1, attachment.ts_ns, attachment.ts_ns)
    else:
        known.count += 1
        known.last_ns = attachment.ts_ns


def _new_row(store: Store, number: int) -> None:
    row = np.zeros(1, store.rows.dtype)
    row["id"] = number
    store.add(row)


def _drop(store: Store, numbers: list[int]) -> None:
    if numbers:
        position = store.find(np.array(numbers, np.uint32))
        store.remove(position[position >= 0])


_HANDLERS: Final = {
    int(Kind.BUFFER): Registry._on_buffer,
    int(Kind.EXPORT): Registry._on_export,
    int(Kind.RELEASE): Registry._on_release,
    int(Kind.RELEASED): Registry._on_released,
    int(Kind.ATTACH): Registry._on_attach,
    int(Kind.DETACH): Registry._on_detach,
    int(Kind.DEVICE): Registry._on_device,
    int(Kind.DEVICE_GONE): Registry._on_device_gone,
    int(Kind.DOMAIN): Registry._on_domain,
    int(Kind.DOMAIN_ATTACH): Registry._on_domain_attach,
    int(Kind.DOMAIN_FREE): Registry._on_domain_free,
    **{int(kind): Registry._on_name for kind in NAME_KINDS},
}
