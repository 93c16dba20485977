# SPDX-License-Identifier: GPL-2.0-or-later
"""The things of a trace that have an identity: buffers, devices, attachments, domains, processes.

They are made and ended by rare events, one by one. What hot events count for them stands in
structured rows (`BUFFER_COUNTS`, ...) that a whole batch adds to at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dmabuf_tool.kernel.text import decode
from dmabuf_tool.model.constraints import NO_GROUP, Effective, Limits
from dmabuf_tool.model.frameworks import Framework, Importer
from dmabuf_tool.schema import DOMAIN_TYPE_NAMES


def name(raw: bytes) -> str:
    """A name from a fixed-size field, up to its NUL. Hostile: for terminals kernel.text.safe."""
    return decode(raw.split(b"\0", 1)[0])


@dataclass(slots=True)
class Process:
    """A process that was seen."""

    tgid: int
    comm: str
    main_thread: bool = False
    """`comm` is the main thread's, which is what ps shows."""


@dataclass(slots=True)
class Imports:
    """Attachments of one buffer to one device."""

    count: int
    first_ns: int
    last_ns: int


@dataclass(slots=True)
class Buffer:
    """One struct dma_buf. `size` in bytes, times in ns; `released_ns` is 0 while it lives."""

    id: int
    size: int = 0
    ino: int = 0
    exporter: str = ""
    name: str = ""
    preexisting: bool = False
    exported_ns: int = 0
    released_ns: int = 0
    tgid: int = 0
    release_duration_ns: int = 0
    """Time in release, 0 until it returned: `released_ns` is its entry."""
    attachments: int = 0
    """Attachments made, refused ones not counted."""
    imports: dict[int, Imports] = field(default_factory=dict)
    """Device -> how often it attached, and when."""
    attached: dict[int, Attachment] = field(default_factory=dict)
    """The live ones, by id."""
    together: tuple[Site, ...] = ()
    """Sites of the attachments there were right after the newest attach."""
    devices: set[int] = field(default_factory=set)
    processes: set[int] = field(default_factory=set)


LONG_MS: Final = 4096


@dataclass(slots=True)
class Releases:
    """How long releases of one exporter's buffers took, of one process.

    `worst` took longest; `by_ms` counts by whole milliseconds, those of LONG_MS and more as one.
    """

    worst: Buffer
    by_ms: Counter[int] = field(default_factory=Counter)

    def add(self, buffer: Buffer) -> None:
        """Count a release whose duration is known."""
        self.by_ms[min(buffer.release_duration_ns // 1_000_000, LONG_MS)] += 1
        if buffer.release_duration_ns > self.worst.release_duration_ns:
            self.worst = buffer

    def slow(self, ms: int) -> int:
        """How many took so many milliseconds and more."""
        return sum(count for took, count in self.by_ms.items() if took >= min(ms, LONG_MS))


@dataclass(slots=True)
class Device:
    """One struct device that attached. `limits` are the newest; attachments keep their own."""

    id: int
    name: str = ""
    driver: str = ""
    bus: str = ""
    limits: Limits | None = None
    domain: int = 0
    attachments: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """Where attachments come from: what a finding about them has as its cause.

    All attachments of one exporter's buffers to one device, by one importer function in one
    process under the same limits are one site.
    """

    id: int
    device: int
    exporter: str
    importer: Importer | None
    framework: Framework
    tgid: int
    limits: Limits
    effective: Effective


@dataclass(slots=True)
class Attachment:
    """One struct dma_buf_attachment; `result` is -errno for one that was refused."""

    id: int
    buffer: Buffer | None
    device: int
    site: Site
    tgid: int
    tid: int
    ts_ns: int
    duration_ns: int
    flags: int
    result: int
    seq: int = 0
    stack: tuple[str, ...] = ()
    tighter: tuple[str, ...] = ()
    """Limits that are tighter than those of every device attached to the buffer before."""
    others: tuple[Site, ...] = ()
    """Sites of the buffer's other attachments when this one was made."""
    detached_ns: int = 0

    @property
    def mixes_coherency(self) -> bool:
        """It joined attachments of devices of the other coherency."""
        mine = self.site.effective.coherent
        return any(site.effective.coherent != mine for site in self.others)


@dataclass(slots=True)
class Domain:
    """One IOMMU domain; `type` is None while only its id is known."""

    id: int
    type: int | None = None
    group: int = NO_GROUP
    pgsize_bitmap: int = 0
    aperture_start: int = 0
    aperture_end: int = 0
    freed_ns: int = 0

    @property
    def type_name(self) -> str | None:
        """The type as sysfs names it."""
        if self.type is None:
            return None
        return DOMAIN_TYPE_NAMES.get(self.type, f"{self.type:#x}")


PEAK: Final = [
    ("second", "<u8"),  # the newest second something was counted in
    ("rate", "<u8"),  # what was counted in it
    ("peak", "<u8"),  # the most that was counted in one second
    ("peak_ns", "<u8"),  # when that second began
]
"""Fields of a highest rate (rates.py)."""

BUFFER_COUNTS: Final = np.dtype(
    [
        ("id", "<u4"),
        ("maps", "<u8"),
        ("failed_maps", "<u8"),
        ("bytes", "<u8"),
        ("cpu_accesses", "<u8"),
        ("cpu_begins", "<i8"),  # that worked, less the ends
        ("first_map", "<u8"),  # sequence number of the first map + 1, 0 for none
        # Sequence number + 1 of the map whose mapping ended last, of coherent devices and others.
        ("last_coherent", "<u8"),
        ("last_incoherent", "<u8"),
        *PEAK,  # CPU accesses a second
        ("invalidates", "<u8"),
        ("last_cpu", "<u8"),  # sequence number of the last CPU access + 1
        ("last_ns", "<u8"),  # any event of the buffer
        ("last_tgid", "<u4"),
    ]
)

ATTACHMENT_COUNTS: Final = np.dtype(
    [
        ("id", "<u4"),
        ("buffer", "<u4"),
        ("device", "<u4"),
        ("site", "<u4"),
        ("tgid", "<u4"),
        ("preexisting", "?"),
        ("shared", "?"),  # another process mapped, unmapped or pinned through it
        ("created", "<u8"),  # sequence number of the ATTACH event
        ("ended", "<u8"),  # of the DETACH event, NEVER while attached
        ("maps", "<u8"),
        ("tables", "<u8"),  # of them those that made one: maps of cached tables left out
        ("failed_maps", "<u8"),
        ("bytes", "<u8"),
        ("first_map", "<u8"),  # sequence number of its first map + 1, 0 for none
        ("direction", "u1"),  # of its first map, 255 before
        ("last_map", "<u8"),  # sequence number + 1 of its last map that maintained caches
        ("repeated", "<u8"),  # maps with no CPU access since the map before
        *PEAK,  # maps a second
        ("pins", "<i8"),
        ("unknown_unmaps", "<u8"),  # of tables the probes did not know
        ("last_ns", "<u8"),
    ]
)

DEVICE_COUNTS: Final = np.dtype(
    [
        ("id", "<u4"),
        ("maps", "<u8"),
        ("failed_maps", "<u8"),
        ("bytes", "<u8"),
        ("bounces", "<u8"),
        ("bounced_bytes", "<u8"),
        *PEAK,  # bounced bytes a second
    ]
)

PROCESS_COUNTS: Final = np.dtype(
    [
        ("id", "<u4"),
        ("maps", "<u8"),
        ("failed_maps", "<u8"),
        ("bytes", "<u8"),
        ("events", "<u8"),
        ("last_ns", "<u8"),
    ]
)

DOMAIN_COUNTS: Final = np.dtype(
    [
        ("id", "<u4"),
        ("maps", "<u8"),  # dma-buf maps of devices attached while in this domain
        ("bytes", "<u8"),
        ("iommu_maps", "<u8"),
        ("iommu_unmaps", "<u8"),
        *PEAK,  # unmaps of dma-bufs a second
    ]
)

NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF
