# SPDX-License-Identifier: GPL-2.0-or-later
"""The record layout, once: what the probes write, what captures hold, what the model reads.

`EVENT` and `SEGMENT` are numpy dtypes of the exact bytes; bpf/events.h is the same in C and a
unit test holds the two together. Every event has the same size and header; what differs by
kind is in the last 40 bytes, and `view()` gives an array of events under the names of a kind.

Units: bytes and nanoseconds (CLOCK_MONOTONIC). Ids are given by the probes at first sight, are
never reused within a capture, and 0 means none or unknown. No field is a kernel pointer.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Events = NDArray[Any]
"""A structured array of dtype `EVENT`, shape (n,)."""


class Kind(enum.IntEnum):
    """What an event says (enum event_kind)."""

    BUFFER = 1
    EXPORT = 2
    RELEASE = 3
    ATTACH = 4
    DETACH = 5
    MAP = 6
    UNMAP = 7
    PIN = 8
    UNPIN = 9
    CPU_BEGIN = 10
    CPU_END = 11
    INVALIDATE = 12
    DEVICE = 13
    DEVICE_GONE = 14
    DOMAIN = 15
    DOMAIN_ATTACH = 16
    DOMAIN_FREE = 17
    IOMMU_MAP = 18
    IOMMU_UNMAP = 19
    BOUNCE = 20
    NAME_BUFFER = 21
    NAME_DEVICE = 22
    NAME_DRIVER = 23
    NAME_BUS = 24
    CONTEXT = 25
    CONTEXT_FREE = 26
    LEVEL2_MAP = 27
    LEVEL2_UNMAP = 28
    FAULT = 29
    NAME_CONTEXT = 30
    RELEASED = 31
    LOG = 32


NAME_KINDS: Final = (
    Kind.NAME_BUFFER,
    Kind.NAME_DEVICE,
    Kind.NAME_DRIVER,
    Kind.NAME_BUS,
    Kind.NAME_CONTEXT,
)

RING_KINDS: Final = (Kind.LOG,)
"""Kinds that come through the ring and become others (probes/kernel_log.py)."""


class Flag(enum.IntFlag):
    """Bits of an event's `flags` (enum event_flag); bpf/events.h says what each means."""

    PREEXISTING = 0x0001
    CUT = 0x0002
    CACHED = 0x0004
    IN_ATTACH = 0x0008
    DYNAMIC = 0x0010
    PEER2PEER = 0x0020
    ALLOW_PEER2PEER = 0x0040
    EXPORTER_PINS = 0x0080
    ELSEWHERE = 0x0100
    TRANSLATED = 0x0200
    COHERENT = 0x0400
    HAS_PARMS = 0x0800
    HAS_MASK = 0x1000
    UNKNOWN_TABLE = 0x2000
    INSIDE = 0x4000
    SEGMENTS_LOST = 0x8000


_HEADER: Final = [
    ("ts_ns", "<u8"),
    ("duration_ns", "<u8"),
    ("comm", "S16"),
    ("tgid", "<u4"),
    ("tid", "<u4"),
    ("result", "<i4"),
    ("kind", "<u2"),
    ("flags", "<u2"),
    ("buffer", "<u4"),
    ("attachment", "<u4"),
    ("mapping", "<u4"),
    ("device", "<u4"),
    ("domain", "<u4"),
    ("stack", "<i4"),
]

_PAYLOADS: Final[dict[str, list[tuple[str, str] | tuple[str, str, tuple[int, ...]]]]] = {
    "words": [("words", "<u8", (5,))],
    "text": [("text", "S40")],
    "buf": [("size", "<u8"), ("ino", "<u8"), ("exporter", "S24")],
    "map": [
        ("size", "<u8"),
        ("address", "<u8"),
        ("nents", "<u4"),
        ("orig_nents", "<u4"),
        ("copied", "<u4"),
        ("dma_errno", "<i4"),
        ("dma_attrs", "<u4"),
        ("direction", "<u4"),
    ],
    "dev": [
        ("dma_mask", "<u8"),
        ("coherent_dma_mask", "<u8"),
        ("bus_dma_limit", "<u8"),
        ("segment_boundary_mask", "<u8"),
        ("max_segment_size", "<u4"),
        ("min_align_mask", "<u4"),
    ],
    "dom": [
        ("pgsize_bitmap", "<u8"),
        ("aperture_start", "<u8"),
        ("aperture_end", "<u8"),
        ("type", "<u4"),
        ("group", "<u4"),
        ("old_domain", "<u4"),
        ("spare", "<u4"),
    ],
    "iommu": [
        ("iova", "<u8"),
        ("paddr", "<u8"),
        ("size", "<u8"),
        ("done", "<u8"),
        ("prot", "<u4"),
        ("calls", "<u4"),
    ],
    "l2": [
        ("address", "<u8"),
        ("size", "<u8"),
        ("offset", "<u8"),
        ("context", "<u4"),
        ("provider", "<u4"),
        ("owner", "<u4"),
        ("client", "<u4"),
    ],
}

PAYLOAD_OF: Final[dict[Kind, str]] = {
    Kind.BUFFER: "buf",
    Kind.EXPORT: "buf",
    Kind.RELEASE: "buf",
    Kind.ATTACH: "buf",
    Kind.DETACH: "buf",
    Kind.MAP: "map",
    Kind.UNMAP: "map",
    Kind.PIN: "map",
    Kind.UNPIN: "map",
    Kind.CPU_BEGIN: "map",
    Kind.CPU_END: "map",
    Kind.INVALIDATE: "map",
    Kind.DEVICE: "dev",
    Kind.DEVICE_GONE: "dev",
    Kind.DOMAIN: "dom",
    Kind.DOMAIN_ATTACH: "dom",
    Kind.DOMAIN_FREE: "dom",
    Kind.IOMMU_MAP: "iommu",
    Kind.IOMMU_UNMAP: "iommu",
    Kind.BOUNCE: "iommu",
    Kind.NAME_BUFFER: "text",
    Kind.NAME_DEVICE: "text",
    Kind.NAME_DRIVER: "text",
    Kind.NAME_BUS: "text",
    Kind.NAME_CONTEXT: "text",
    Kind.CONTEXT: "l2",
    Kind.CONTEXT_FREE: "l2",
    Kind.LEVEL2_MAP: "l2",
    Kind.LEVEL2_UNMAP: "l2",
    Kind.FAULT: "l2",
    Kind.RELEASED: "buf",
    Kind.LOG: "text",
}

EVENT: Final = np.dtype([*_HEADER, *_PAYLOADS["words"]])
"""One event: 112 bytes, the last 40 as five 64-bit words."""

VIEWS: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype([*_HEADER, *payload]) for name, payload in _PAYLOADS.items()
}
"""The same 112 bytes under the names of each payload."""

SEGMENT: Final = np.dtype(
    [
        ("page", "<u8"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("dma_address", "<u8"),
        ("dma_length", "<u4"),
        ("dma_flags", "<u4"),
    ]
)
"""One scatterlist entry, 32 bytes. `page` is the physical address of the page; PAGE_NONE where
the entry has no page, PAGE_UNKNOWN where the kernel's page array could not be resolved."""

PAGE_NONE: Final = 0xFFFF_FFFF_FFFF_FFFF
PAGE_UNKNOWN: Final = 0xFFFF_FFFF_FFFF_FFFE

TABLE: Final = np.dtype(
    [
        ("mapping", "<u4"),
        ("first", "<u4"),
        ("count", "<u4"),
        ("total", "<u4"),
        ("offset", "<u8"),
    ]
)
"""One chunk of a mapping's scatterlist: entries first..first+count of `total`, found at
segments[offset : offset + count] of the same batch. The chunks of a mapping come before or in
the batch that has its MAP event."""

SG_DMA_BUS_ADDRESS: Final = 1
SG_DMA_SWIOTLB: Final = 2

DIRECTIONS: Final = ("bidirectional", "to-device", "from-device", "none")
"""enum dma_data_direction, by value."""


class DomainType(enum.IntFlag):
    """Bits of iommu_domain.type (include/linux/iommu.h); UNMANAGED is PAGING alone."""

    PAGING = 0x01
    DMA_API = 0x02
    IDENTITY = 0x04
    DMA_FQ = 0x08
    SVA = 0x10
    PLATFORM = 0x20
    NESTED = 0x40


DOMAIN_TYPE_NAMES: Final = {
    0x00: "blocked",
    0x01: "unmanaged",
    0x03: "DMA",
    0x04: "identity",
    0x0B: "DMA-FQ",
    0x10: "SVA",
    0x20: "platform",
    0x40: "nested",
}
"""iommu_domain.type -> the name sysfs uses."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the trace did not get, counted since its start. All zero means nothing was lost."""

    events: int = 0
    scatterlists: int = 0
    untracked: int = 0
    calls: int = 0

    def __bool__(self) -> bool:
        return bool(self.events or self.scatterlists or self.untracked or self.calls)


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of a trace: the one currency between probes, captures, model and renderers.

    `stacks` holds call stacks seen for the first time: the event's `stack` key to frames,
    innermost first, each "function+0x1f [module]" (no module for the kernel itself).
    `losses` are the totals up to the end of this batch.
    """

    events: Events
    tables: NDArray[Any]
    segments: NDArray[Any]
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    losses: Losses = Losses()


def view(events: Events, payload: str) -> Events:
    """Events under the field names of a payload ("map", "dev", ...); no copy.

    Raises ValueError for a non-contiguous selection; index first, which copies.
    """
    return events.view(VIEWS[payload])


def of_kind(events: Events, *kinds: Kind) -> Events:
    """The events of the given kinds, which share a payload, under that payload's names."""
    chosen = events[np.isin(events["kind"], kinds)]
    return view(chosen, PAYLOAD_OF[kinds[0]])


def empty_batch() -> Batch:
    """A batch with nothing in it."""
    return Batch(np.empty(0, EVENT), np.empty(0, TABLE), np.empty(0, SEGMENT))


def text(value: bytes) -> str:
    """Bytes of a fixed-size name field as text; what is not UTF-8 becomes U+FFFD.

    Names are hostile: show them only through dmabuf_tool.kernel.text.
    """
    return value.decode("utf-8", "replace")
