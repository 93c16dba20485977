# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces with contexts: what the IOMMU hooks and the GPU VM providers would send."""

from __future__ import annotations

from batches import Attachment, Device, Entries, Mapping, Trace, segments

from dmabuf_tool.schema import DomainType, Flag, Kind

PAGE = 4096
VA = 0x4000_0000
IOVA = 0xFFF0_0000


def translated(trace: Trace, name: str = "0000:00:05.0", group: int = 1) -> Device:
    """A device behind a translating default domain."""
    domain = trace.domain(group=group)
    flags = Flag.HAS_MASK | Flag.HAS_PARMS | Flag.COHERENT | Flag.TRANSLATED
    return trace.device(name, domain=domain, group=group, flags=flags)


def private(trace: Trace, device: Device | None = None) -> int:
    """A driver's own domain; attached to the device once, and left again."""
    number = trace.domain(DomainType.PAGING, group=0xFFFF_FFFF)
    if device is not None:
        switch(trace, device, number)
        switch(trace, device, device.domain, number)
    return number


def switch(trace: Trace, device: Device, to: int, old: int | None = None) -> None:
    """Attach the device to another domain."""
    trace.event(
        Kind.DOMAIN_ATTACH, device=device.id, domain=to, group=device.group,
        type=int(DomainType.PAGING), old_domain=device.domain if old is None else old,
    )  # fmt: skip


def put(
    trace: Trace, domain: int, va: int, target: int, size: int = PAGE, done: int | None = None,
    result: int = 0,
) -> None:  # fmt: skip
    """iommu_map() in a private domain."""
    trace.event(
        Kind.IOMMU_MAP, domain=domain, iova=va, paddr=target, size=size,
        done=(0 if result else size) if done is None else done, calls=1, result=result,
    )  # fmt: skip


def take(trace: Trace, domain: int, va: int, size: int = PAGE, done: int | None = None) -> None:
    """iommu_unmap() in a private domain."""
    trace.event(
        Kind.IOMMU_UNMAP, domain=domain, iova=va, size=size, calls=1,
        done=size if done is None else done,
    )  # fmt: skip


def free(trace: Trace, domain: int) -> None:
    trace.event(Kind.DOMAIN_FREE, domain=domain)


def map_pages(trace: Trace, attachment: Attachment, entries: Entries, *pages: int) -> Mapping:
    """A map whose entries stand on these physical pages."""
    mapping = trace.map(attachment, entries)
    (_, _, _, rows), *_ = trace._chunks[len(trace) - 1]
    fresh = segments(entries)
    fresh["page"] = pages
    rows[:] = fresh
    return mapping


def fault(trace: Trace, device: Device, address: int, ago_ms: float = 0.0) -> None:
    """A fault told now that happened some time ago."""
    trace.now -= int(ago_ms * 1_000_000)
    trace.event(Kind.FAULT, device=device.id, address=address, provider=1, client=1)
    trace.now += int(ago_ms * 1_000_000)


def vm(trace: Trace, number: int, device: Device) -> int:
    """A GPU VM."""
    trace.event(Kind.CONTEXT, device=device.id, context=number, provider=2, owner=0)
    return number


def bind(
    trace: Trace, context: int, va: int, attachment: Attachment, size: int = PAGE,
    offset: int = 0, result: int = 0,
) -> None:  # fmt: skip
    trace.event(
        Kind.LEVEL2_MAP, buffer=attachment.buffer.id, attachment=attachment.id,
        device=attachment.device.id, context=context, address=va, size=size, offset=offset,
        provider=2, result=result,
    )  # fmt: skip


def unbind(trace: Trace, context: int, va: int, size: int = PAGE) -> None:
    trace.event(Kind.LEVEL2_UNMAP, context=context, address=va, size=size, provider=2)
