# SPDX-License-Identifier: GPL-2.0-or-later
"""Why calls fail: errnos as the kernel names them, and the best known reason for each.

The reasons are data; the first that fits is told. What an exporter returns is often not the
cause: amdgpu and xe turn a failed DMA mapping into -EBUSY, and the core turns what it does not
expect into -EIO (drivers/dma-buf/dma-buf.c, kernel/dma/mapping.c dma_map_sgtable).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dmabuf_tool.kernel.errnos import errno_name

TRANSIENT: Final = frozenset(
    {errno.EINTR, errno.EAGAIN, errno.EDEADLK, errno.EALREADY, 512, 513, 514, 516}
)
"""A signal came, or a ww_mutex asks to try again: no refusal, the caller repeats."""


def negative(result: int) -> str:
    """-22 -> "-EINVAL"."""
    return f"-{errno_name(result)}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A map that failed: what is known of it.

    `result` is what the caller got, `dma_errno` what __dma_map_sg_attrs returned inside (0: not
    called, or good); both are 0 or negative. `bounced_bytes` went towards the bounce buffer.
    """

    result: int
    dma_errno: int
    bounced_bytes: int
    translated: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason, when it fits, and what to do."""

    fits: Callable[[Refusal], bool]
    text: str
    advice: str


MAP_REASONS: Final = (
    Reason(
        lambda r: bool(r.dma_errno) and bool(r.bounced_bytes),
        "the device does not reach the pages and the bounce buffer cannot take them "
        "(256 KiB an entry at most)",
        "Allocate in reach of the device (DMA32 or CMA heap), raise its DMA mask or bus limit, "
        "or switch the IOMMU on.",
    ),
    Reason(
        lambda r: r.dma_errno == -errno.EREMOTEIO,
        "peer to peer is not possible between the two devices",
        "Put both devices below one switch, or have the exporter migrate to system memory.",
    ),
    Reason(
        lambda r: r.dma_errno == -errno.ENOMEM and r.translated,
        "no I/O virtual addresses or no IOMMU page tables left",
        "Look for mappings that are never ended; unmap buffers that are not in use.",
    ),
    Reason(
        lambda r: r.dma_errno == -errno.EINVAL,
        "an address or length does not fit the IOMMU's page size",
        "The exporter must give whole, aligned pages.",
    ),
    Reason(
        lambda r: r.dma_errno in (-errno.EIO, -errno.ENOMEM),
        "an address is beyond the device's mask or bus limit and cannot be bounced",
        "Allocate in reach of the device (DMA32 or CMA heap), raise its DMA mask or bus limit, "
        "or switch the IOMMU on.",
    ),
    Reason(
        lambda r: bool(r.dma_errno),
        "the DMA API refused the table",
        "See the kernel log for the device's DMA errors.",
    ),
    Reason(
        lambda r: r.result == -errno.ENOMEM,
        "the exporter has no memory, or returned no table (NULL becomes -ENOMEM)",
        "See whether the exporter's memory is exhausted; if not, its map_dma_buf is at fault.",
    ),
    Reason(
        lambda r: r.result == -errno.EBUSY,
        "the exporter could not move or pin the buffer",
        "See whether the buffer is pinned elsewhere or its memory is full.",
    ),
    Reason(
        lambda r: r.result in (-errno.EOPNOTSUPP, -524),
        "the exporter cannot map this buffer for such an importer",
        "Have this device export and the other import, or let the importer allow peer to peer.",
    ),
    Reason(
        lambda r: True,
        "the exporter refused before it called the DMA API",
        "See the exporter's driver and the kernel log.",
    ),
)

ATTACH_REASONS: Final = {
    errno.ENOMEM: "no memory for the attachment",
    errno.EINVAL: "no buffer or no device was given, or the exporter does not know the device",
    errno.EOPNOTSUPP: "the exporter cannot share this buffer with the device",
    errno.ENODEV: "the exporter does not share with this device",
    errno.EPERM: "the exporter does not allow this importer",
    errno.EACCES: "the exporter does not allow this importer",
    errno.EBUSY: "the exporter is in use, or could not pin the buffer",
    errno.EREMOTEIO: "peer to peer is not possible between the two devices",
}
"""errno -> why an exporter's attach, or the map inside it, refuses."""

PIN_REASONS: Final = {
    errno.ENOMEM: "no room where the buffer would have to be pinned",
    errno.EINVAL: "the buffer cannot be pinned where this importer reaches it",
    errno.EBUSY: "the buffer could not be moved to where it would be pinned",
    errno.EPERM: "the buffer may not be pinned",
    errno.EOPNOTSUPP: "the exporter does not pin for such an importer",
}


def map_reason(refusal: Refusal) -> Reason:
    """The first reason that fits."""
    return next(reason for reason in MAP_REASONS if reason.fits(refusal))
