# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace written in Python: `Trace` makes the events the probes would send, as valid batches.

    trace = Trace()
    gpu = trace.device("0000:00:05.0", driver="edu")
    buffer = trace.export(1 << 20, exporter="system")
    attachment = trace.attach(buffer, gpu, importer="edu_attach [edu]")
    mapping = trace.map(attachment, [(0xfff00000, 1 << 20)])
    trace.unmap(mapping)
    batch = trace.batch()            # or trace.batches(cuts) for several

Ids, sequence and flags are as dmabuf_tool/schema.py and bpf/ say. Time goes on by a microsecond
an event; `trace.wait(ms)` lets more of it pass. `trace.run_as(pid, comm)` changes the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from dmabuf_tool.schema import (
    EVENT,
    PAGE_UNKNOWN,
    PAYLOAD_OF,
    SEGMENT,
    TABLE,
    Batch,
    DomainType,
    Flag,
    Kind,
    Losses,
    view,
)

Entries = Sequence[tuple[int, int]] | Sequence[tuple[int, int, int]]
"""(DMA address, DMA length[, dma_flags]) of each entry."""
BIDIRECTIONAL, TO_DEVICE, FROM_DEVICE = 0, 1, 2
MS = 1_000_000


@dataclass
class Device:
    """What DEVICE events say of a device; change it between attaches as a driver would."""

    id: int
    dma_mask: int = 0xFFFF_FFFF
    coherent_dma_mask: int = 0xFFFF_FFFF
    bus_dma_limit: int = 0
    max_segment_size: int = 65536
    segment_boundary_mask: int = 0xFFFF_FFFF
    min_align_mask: int = 0
    flags: Flag = Flag.HAS_MASK | Flag.HAS_PARMS | Flag.COHERENT
    group: int = 0xFFFF_FFFF
    domain: int = 0


@dataclass
class Buffer:
    id: int
    size: int
    ino: int
    exporter: str


@dataclass
class Attachment:
    id: int
    buffer: Buffer
    device: Device


@dataclass
class Mapping:
    id: int
    attachment: Attachment
    entries: list[tuple[int, ...]] = field(default_factory=list)
    direction: int = BIDIRECTIONAL


class Trace:
    """Events in the order they are told; see the module's docstring."""

    def __init__(self, start_ns: int = 1_000 * MS) -> None:
        self.now = start_ns
        self.losses = Losses()
        self._pid, self._tid, self._comm = 100, 100, "app"
        self._events: list[np.ndarray] = []
        self._chunks: dict[int, list[tuple[int, int, int, np.ndarray]]] = {}
        self._stacks: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._stack_keys: dict[tuple[str, ...], int] = {}
        self._ids: dict[str, int] = {}

    # Who and when

    def run_as(self, pid: int, comm: str, tid: int | None = None) -> Trace:
        """Events that follow are this process's."""
        self._pid, self._tid, self._comm = pid, tid or pid, comm
        return self

    def wait(self, ms: float) -> Trace:
        """Let time pass."""
        self.now += int(ms * MS)
        return self

    def __len__(self) -> int:
        return len(self._events)

    # Objects

    def device(
        self, name: str = "0000:00:05.0", driver: str = "edu", bus: str = "pci", **limits: Any
    ) -> Device:
        """A device seen for the first time; `limits` are fields of `Device`."""
        device = Device(self._id("device"), **limits)
        for kind, text in (
            (Kind.NAME_DEVICE, name),
            (Kind.NAME_BUS, bus),
            (Kind.NAME_DRIVER, driver),
        ):
            self.name(kind, text, device=device.id)
        return device

    def name(self, kind: Kind, text: str | bytes, *, buffer: int = 0, device: int = 0) -> None:
        raw = text.encode() if isinstance(text, str) else text
        self.event(kind, buffer=buffer, device=device, text=raw)

    def domain(self, type: int = DomainType.PAGING | DomainType.DMA_API, group: int = 1) -> int:
        """An IOMMU domain; give its id to a device with flag TRANSLATED."""
        number = self._id("domain")
        self.event(
            Kind.DOMAIN, domain=number, type=int(type), group=group, pgsize_bitmap=0x40201000,
            aperture_end=(1 << 48) - 1,
        )  # fmt: skip
        return number

    def export(
        self, size: int = 1 << 20, exporter: str = "system", ino: int | None = None, name: str = ""
    ) -> Buffer:
        number = self._id("buffer")
        buffer = Buffer(number, size, ino if ino is not None else 40 + number, exporter)
        self._buf(Kind.EXPORT, buffer, buffer=number)
        if name:
            self.name(Kind.NAME_BUFFER, name, buffer=number)
        return buffer

    def old_buffer(self, size: int = 1 << 20, exporter: str = "system") -> Buffer:
        """A buffer from before the trace."""
        number = self._id("buffer")
        buffer = Buffer(number, size, 40 + number, exporter)
        self._buf(Kind.BUFFER, buffer, buffer=number, flags=Flag.PREEXISTING)
        return buffer

    def attach(
        self,
        buffer: Buffer,
        device: Device,
        *,
        importer: str = "edu_attach [edu]",
        stack: tuple[str, ...] | None = None,
        result: int = 0,
        flags: int = 0,
        duration_ns: int = 1000,
    ) -> Attachment:
        """An attach, refused if `result` is -errno. DEVICE goes ahead, as from the probes."""
        attachment = Attachment(self._id("attachment"), buffer, device)
        self.limits(device)
        frames = stack or _called_by(importer, "dma_buf_dynamic_attach")
        self._buf(
            Kind.ATTACH, buffer, buffer=buffer.id, attachment=attachment.id, device=device.id,
            flags=int(flags), result=result, stack=self._stack(frames), duration_ns=duration_ns,
        )  # fmt: skip
        return attachment

    def old_attachment(self, buffer: Buffer, device: Device) -> Attachment:
        """An attachment from before the trace, seen for the first time."""
        attachment = Attachment(self._id("attachment"), buffer, device)
        self.limits(device)
        self._buf(
            Kind.ATTACH, buffer, buffer=buffer.id, attachment=attachment.id, device=device.id,
            flags=Flag.PREEXISTING,
        )  # fmt: skip
        return attachment

    def limits(self, device: Device) -> None:
        self.event(
            Kind.DEVICE, device=device.id, domain=device.domain, attachment=device.group,
            flags=int(device.flags), dma_mask=device.dma_mask,
            coherent_dma_mask=device.coherent_dma_mask, bus_dma_limit=device.bus_dma_limit,
            segment_boundary_mask=device.segment_boundary_mask,
            max_segment_size=device.max_segment_size, min_align_mask=device.min_align_mask,
        )  # fmt: skip

    def detach(self, attachment: Attachment, *, flags: int = 0) -> None:
        self._buf(Kind.DETACH, attachment.buffer, **_of(attachment), flags=int(flags))

    def release(self, buffer: Buffer, duration_ns: int = 0) -> None:
        """The entry; the return too if it is known how long it took."""
        self._buf(Kind.RELEASE, buffer, buffer=buffer.id)
        if duration_ns:
            self.now += duration_ns - 1000
            self._buf(Kind.RELEASED, buffer, buffer=buffer.id, duration_ns=duration_ns)

    # Mappings

    def map(
        self,
        attachment: Attachment,
        entries: Entries = (),
        *,
        direction: int = BIDIRECTIONAL,
        attrs: int = 0,
        flags: int = 0,
        orig_nents: int | None = None,
        cap: int | None = None,
        chunk: int = 127,
        lose_chunk: int | None = None,
        duration_ns: int = 2000,
    ) -> Mapping:
        """A map that gave a new table. `cap` cuts the copied table, `lose_chunk` loses one."""
        mapping = Mapping(self._id("mapping"), attachment, list(entries), direction)
        rows = segments(entries)
        orig = len(rows) if orig_nents is None else orig_nents
        copied = rows if cap is None else rows[:cap]
        bits = int(flags) | (Flag.CUT if len(copied) < len(rows) else 0)
        chunks = []
        for index, first in enumerate(range(0, len(copied), chunk)):
            if index == lose_chunk:
                bits |= Flag.SEGMENTS_LOST
                continue
            part = copied[first : first + chunk]
            chunks.append((mapping.id, first, max(len(rows), orig), part))
        self._chunks[len(self._events)] = chunks
        self._map(
            Kind.MAP, mapping, flags=int(bits), nents=len(rows), orig_nents=orig,
            copied=sum(len(part) for *_, part in chunks), dma_attrs=attrs,
            duration_ns=duration_ns,
        )  # fmt: skip
        return mapping

    def map_again(self, mapping: Mapping) -> None:
        """A map that returned the exporter's cached table (up to 6.14)."""
        self._map(Kind.MAP, mapping, flags=int(Flag.CACHED), nents=len(mapping.entries))

    def map_failed(
        self, attachment: Attachment, result: int, *, dma_errno: int = 0, direction: int = 0
    ) -> None:
        size = attachment.buffer.size
        self.event(
            Kind.MAP, **_of(attachment), result=result, dma_errno=dma_errno, size=size,
            direction=direction, duration_ns=1000,
        )  # fmt: skip

    def unmap(
        self, mapping: Mapping, *, flags: int = 0, by: Attachment | None = None,
        direction: int | None = None, caller: str = "",
    ) -> None:  # fmt: skip
        """The probes take the call stack of an attachment's first: give its `caller`."""
        stack = self._stack(_called_by(caller, "dma_buf_unmap_attachment")) if caller else -1
        self._map(
            Kind.UNMAP, mapping, by=by, flags=int(flags), stack=stack,
            direction=mapping.direction if direction is None else direction,
        )  # fmt: skip

    def bounce(self, attachment: Attachment, size: int, mapping: int = 0) -> None:
        """A bounce inside the map that follows."""
        self.event(
            Kind.BOUNCE, **_of(attachment), mapping=mapping, flags=int(Flag.INSIDE),
            iova=1 << 33, size=size,
        )  # fmt: skip

    def iommu_map(self, attachment: Attachment, iova: int, size: int, paddr: int = 0) -> None:
        """What the map that follows enters into the IOMMU."""
        mapping = self._ids.get("mapping", 0) + 1
        self.event(
            Kind.IOMMU_MAP,
            mapping=mapping, **_of(attachment), domain=attachment.device.domain,
            flags=int(Flag.INSIDE), iova=iova, paddr=paddr, size=size, done=size,
        )  # fmt: skip

    def iommu_unmap(self, attachment: Attachment, iova: int, size: int) -> None:
        """What an unmap takes out of the IOMMU."""
        self.event(
            Kind.IOMMU_UNMAP, **_of(attachment), domain=attachment.device.domain,
            flags=int(Flag.INSIDE), iova=iova, size=size, done=size,
        )  # fmt: skip

    # The rest

    def pin(self, attachment: Attachment, result: int = 0) -> None:
        self.event(Kind.PIN, **_of(attachment), result=result, size=attachment.buffer.size)

    def unpin(self, attachment: Attachment) -> None:
        self.event(Kind.UNPIN, **_of(attachment), size=attachment.buffer.size)

    def cpu_begin(self, buffer: Buffer, direction: int = BIDIRECTIONAL) -> None:
        self.event(Kind.CPU_BEGIN, buffer=buffer.id, size=buffer.size, direction=direction)

    def cpu_end(self, buffer: Buffer, direction: int = BIDIRECTIONAL) -> None:
        self.event(Kind.CPU_END, buffer=buffer.id, size=buffer.size, direction=direction)

    def invalidate(self, buffer: Buffer) -> None:
        self.event(Kind.INVALIDATE, buffer=buffer.id, size=buffer.size, direction=3)

    def event(self, kind: Kind, **fields: Any) -> None:
        """Any event, by the names of its header and payload."""
        row = np.zeros(1, EVENT)
        self.now += 1000
        row["ts_ns"], row["kind"] = self.now, kind
        row["tgid"], row["tid"], row["comm"] = self._pid, self._tid, self._comm.encode()
        row["stack"] = -1
        named = view(row, PAYLOAD_OF[kind])
        for field_name, value in fields.items():
            named[field_name] = value
        self._events.append(row)

    # Batches

    def batch(self, start: int = 0, end: int | None = None, early: int = 0) -> Batch:
        """Events start..end as one batch; chunks come up to `early` events before their map."""
        end = len(self._events) if end is None else end
        last = end == len(self._events)
        tables, parts, offset = [], [], 0
        for place, chunks in sorted(self._chunks.items()):
            sent = max(0, place - early)
            if not (start <= sent < end or (last and sent >= end)):
                continue
            for mapping, first, total, rows in chunks:
                tables.append((mapping, first, len(rows), total, offset))
                parts.append(rows)
                offset += len(rows)
        events = self._events[start:end]
        return Batch(
            events=np.concatenate(events) if events else np.empty(0, EVENT),
            tables=np.array(tables, TABLE),
            segments=np.concatenate(parts) if parts else np.empty(0, SEGMENT),
            stacks={key: frames for key, (at, frames) in self._stacks.items() if start <= at < end},
            losses=self.losses if last else Losses(),
        )

    def batches(self, cuts: Iterable[int], early: int = 0) -> list[Batch]:
        """The trace cut before the events of these numbers."""
        edges = sorted({0, len(self._events), *(cut for cut in cuts if cut <= len(self._events))})
        return [self.batch(a, b, early) for a, b in pairwise(edges)]

    def _id(self, of: str) -> int:
        self._ids[of] = self._ids.get(of, 0) + 1
        return self._ids[of]

    def _stack(self, frames: tuple[str, ...]) -> int:
        if frames not in self._stack_keys:
            self._stack_keys[frames] = len(self._stack_keys) + 1
            self._stacks[self._stack_keys[frames]] = (len(self._events), frames)
        return self._stack_keys[frames]

    def _buf(self, kind: Kind, of: Buffer, **fields: Any) -> None:
        exporter = of.exporter.encode()
        self.event(kind, size=of.size, ino=of.ino, exporter=exporter, **fields)

    def _map(
        self, kind: Kind, mapping: Mapping, by: Attachment | None = None, **fields: Any
    ) -> None:
        entries = mapping.entries
        fields = {"direction": mapping.direction, "nents": len(entries), **fields}
        self.event(
            kind, **_of(by or mapping.attachment), mapping=mapping.id,
            size=mapping.attachment.buffer.size, address=entries[0][0] if entries else 0,
            **fields,
        )  # fmt: skip


def _of(attachment: Attachment) -> dict[str, int]:
    return {
        "attachment": attachment.id,
        "buffer": attachment.buffer.id,
        "device": attachment.device.id,
    }


def _called_by(caller: str, callee: str) -> tuple[str, ...]:
    """Frames as the kernel's, of "function" or "function [module]"."""
    name, space, module = caller.partition(" ")
    return ("bpf_prog_0123456789abcdef_exit+0x2d", f"{callee}+0x1a0", f"{name}+0x5c{space}{module}")


def segments(entries: Entries) -> np.ndarray:
    """Scatterlist entries as the capture holds them."""
    rows = np.zeros(len(entries), SEGMENT)
    rows["page"] = PAGE_UNKNOWN
    for row, entry in zip(rows, entries, strict=True):
        row["dma_address"], row["dma_length"] = entry[0], entry[1]
        row["length"] = entry[1]
        row["dma_flags"] = entry[2] if len(entry) > 2 else 0
    return rows


def runs(*lengths: int, start: int = 0x1000_0000, gap: int = 0x1000) -> list[tuple[int, int]]:
    """Entries of these lengths with a gap between each two."""
    entries = []
    for length in lengths:
        entries.append((start, length))
        start += length + gap
    return entries


def pages(count: int, start: int = 0x1000_0000, size: int = 4096) -> list[tuple[int, int]]:
    """Entries that follow each other without a gap."""
    return [(start + index * size, size) for index in range(count)]
