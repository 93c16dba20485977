# SPDX-License-Identifier: GPL-2.0-or-later
"""address-beyond-limit: a table has a DMA address the device cannot put on its bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="address-beyond-limit",
    group="A",
    severity=Severity.ERROR,
    title="a DMA address is beyond what the device can address",
    holds="The DMA address of the last byte of an entry is above min_not_zero(dma_mask, "
    "bus_dma_limit) of that device, as of its attach. Bus addresses (peer to peer) are left out.",
    why="The device cuts the address off and reads or writes memory of somebody else, or its "
    'driver refuses ("unsupported memory larger than 4G").',
    source="include/linux/dma-direct.h, dma_capable(). The DMA API keeps the limit; an exporter "
    "that goes around it, or a driver that lowers its mask late, does not.",
    advice="Allocate lower (DMA32 or CMA heap) or switch the IOMMU on; check the driver's "
    "dma_set_mask() and the exporter's use of the DMA API.",
    example="DMA address 0x140001fff is beyond 0xffffffff (mask 0xffffffff, no bus limit); "
    "exporter system, importer rga_dma_map [rga]",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    limit = step.model.registry.sites.effective["address_limit"][maps["site"]]
    rows = maps.compress(maps["last"] > limit)
    found.rows(RULE, rows, score=rows["last"], tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    limits, limit = site.limits, site.effective.address_limit
    bus = f"bus limit {limits.bus_dma_limit:#x}" if limits.bus_dma_limit else "no bus limit"
    return Told(
        f"DMA address {int(row['last']):#x} is beyond {limit:#x} "
        f"(mask {limits.dma_mask:#x}, {bus}); exporter {exporter(site)}, importer {importer(site)}",
        {
            "last_address": int(row["last"]),
            "limit": limit,
            "dma_mask": limits.dma_mask,
            "bus_dma_limit": limits.bus_dma_limit,
            "beyond_bytes": int(row["last"]) - limit,
            "lowest_address": int(row["lowest"]),
            "source": str(site.effective.address_source),
        },
    )
