# SPDX-License-Identifier: GPL-2.0-or-later
"""What a device can take: its limits as the kernel holds them, and what is in force.

`Limits` are the fields as the probes read them at an attach. `Effective` is what they mean,
each value with its source: declared by the driver, a default of the kernel or the bus, inferred
from the importer's framework, or configured by the user.

include/linux/dma-mapping.h: dma_get_max_seg_size() is 64 KiB without dma_parms or with a 0 in
it, dma_get_seg_boundary() ULONG_MAX; drivers/pci/probe.c, pci_device_add() sets 64 KiB and
4G-1 on every PCI device. include/linux/dma-direct.h, dma_capable(): the address limit is
min_not_zero(*dev->dma_mask, dev->bus_dma_limit).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.frameworks import Framework

NO_LIMIT: Final = 0xFFFF_FFFF_FFFF_FFFF
DEFAULT_SEGMENT: Final = 65536
PCI_BOUNDARY: Final = 0xFFFF_FFFF
DEFAULT_MASK: Final = 0xFFFF_FFFF
"""dma_mask of a PCI or platform device whose driver sets none (pci_setup_device(),
setup_pdev_dma_masks())."""
NO_GROUP: Final = 0xFFFF_FFFF


class Source(enum.IntEnum):
    """Where a limit comes from, the weakest first."""

    NONE = 0
    DEFAULT = 1
    INFERRED = 2
    DECLARED = 3
    CONFIGURED = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Limits:
    """A device's limits as of an attach; 0 means "not set". Bytes and bus addresses."""

    device: int
    bus: str = ""
    driver: str = ""
    dma_mask: int = 0
    coherent_dma_mask: int = 0
    bus_dma_limit: int = 0
    segment_boundary_mask: int = 0
    max_segment_size: int = 0
    min_align_mask: int = 0
    has_parms: bool = False
    has_mask: bool = False
    coherent: bool = False
    translated: bool = False
    group: int = NO_GROUP
    domain: int = 0


@dataclass(frozen=True, slots=True)
class Configured:
    """Limits a user sets for a device or driver; None leaves what the kernel says."""

    max_segment_count: int | None = None
    max_segment_size: int | None = None
    segment_boundary_mask: int | None = None
    min_align_mask: int | None = None
    address_limit: int | None = None
    coherent: bool | None = None
    pages: bool | None = None


@dataclass(frozen=True, slots=True)
class Effective:
    """The limits in force for an attachment.

    `address_limit` and `segment_boundary_mask` are NO_LIMIT where there is none,
    `max_segment_count` is 0. `contiguous` means the importer takes one DMA-contiguous run only,
    `pages` that it reads struct page from tables.
    """

    address_limit: int
    address_source: Source
    max_segment_size: int
    segment_size_source: Source
    segment_boundary_mask: int
    boundary_source: Source
    min_align_mask: int
    align_source: Source
    max_segment_count: int
    count_source: Source
    coherent: bool
    coherent_source: Source
    pages: bool
    pages_source: Source

    @property
    def contiguous(self) -> bool:
        """The importer takes one DMA-contiguous run only."""
        return self.max_segment_count == 1


def address_limit(limits: Limits) -> int:
    """min_not_zero(dma_mask, bus_dma_limit), NO_LIMIT if neither is set."""
    set_ones = [limit for limit in (limits.dma_mask, limits.bus_dma_limit) if limit]
    return min(set_ones, default=NO_LIMIT)


def effective(
    limits: Limits, framework: Framework, configured: Configured | None = None
) -> Effective:
    """What is in force for a device attached by an importer of this framework."""
    user = configured or Configured()
    address = (address_limit(limits), Source.DECLARED)
    if address[0] == NO_LIMIT:
        address = (NO_LIMIT, Source.NONE)
    size = _segment_size(limits)
    boundary = _boundary(limits)
    align = (limits.min_align_mask, Source.DECLARED if limits.min_align_mask else Source.DEFAULT)
    count = (1, Source.INFERRED) if framework.contiguous else (0, Source.NONE)
    coherent = (int(limits.coherent), Source.DECLARED)
    pages = (1, Source.INFERRED) if framework.pages else (0, Source.NONE)
    address = _user(address, user.address_limit)
    size = _user(size, user.max_segment_size)
    boundary = _user(boundary, user.segment_boundary_mask)
    align = _user(align, user.min_align_mask)
    count = _user(count, user.max_segment_count)
    coherent = _user(coherent, user.coherent)
    pages = _user(pages, user.pages)
    return Effective(
        address_limit=address[0],
        address_source=address[1],
        max_segment_size=size[0],
        segment_size_source=size[1],
        segment_boundary_mask=boundary[0],
        boundary_source=boundary[1],
        min_align_mask=align[0],
        align_source=align[1],
        max_segment_count=count[0],
        count_source=count[1],
        coherent=bool(coherent[0]),
        coherent_source=coherent[1],
        pages=bool(pages[0]),
        pages_source=pages[1],
    )


def _user(kernel: tuple[int, Source], wanted: int | None) -> tuple[int, Source]:
    return kernel if wanted is None else (int(wanted), Source.CONFIGURED)


def _segment_size(limits: Limits) -> tuple[int, Source]:
    """64 KiB is the kernel's default, and what the PCI core writes into every PCI device."""
    size = limits.max_segment_size if limits.has_parms else 0
    if not size or (size == DEFAULT_SEGMENT and limits.bus == "pci"):
        return DEFAULT_SEGMENT, Source.DEFAULT
    return size, Source.DECLARED


def _boundary(limits: Limits) -> tuple[int, Source]:
    """No boundary by default; 4G-1 on PCI is the bus's."""
    mask = limits.segment_boundary_mask if limits.has_parms else 0
    if not mask:
        return NO_LIMIT, Source.NONE
    if mask == PCI_BOUNDARY and limits.bus == "pci":
        return mask, Source.DEFAULT
    return mask, Source.DECLARED


EFFECTIVE: Final = np.dtype(
    [
        ("address_limit", "<u8"),
        ("max_segment_size", "<u4"),
        ("segment_size_source", "u1"),
        ("segment_boundary_mask", "<u8"),
        ("boundary_source", "u1"),
        ("min_align_mask", "<u4"),
        ("max_segment_count", "<u4"),
        ("count_source", "u1"),
        ("coherent", "?"),
        ("translated", "?"),
        ("pages", "?"),  # the importer uses struct page
    ]
)
"""The part of `Effective` that rules compare with scatterlists, a row a site."""


def effective_row(value: Effective, limits: Limits) -> tuple[Any, ...]:
    """One `EFFECTIVE` row."""
    return (
        value.address_limit,
        min(value.max_segment_size, 0xFFFF_FFFF),
        int(value.segment_size_source),
        value.segment_boundary_mask,
        int(value.boundary_source),
        min(value.min_align_mask, 0xFFFF_FFFF),
        value.max_segment_count,
        int(value.count_source),
        value.coherent,
        limits.translated,
        value.pages,
    )
