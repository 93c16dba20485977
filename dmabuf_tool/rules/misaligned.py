# SPDX-License-Identifier: GPL-2.0-or-later
"""misaligned: addresses or lengths that are not whole pages, or not as the device needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="misaligned",
    group="A",
    severity=Severity.WARNING,
    title="addresses or lengths are not aligned",
    holds="A DMA address or length of an entry is not a multiple of 4096 (the smallest page), or "
    "an address has bits of a min_align_mask that a user configured. A mask the driver declared "
    "only asks that the offset in the page is kept.",
    why="Importers and IOMMUs work in pages: they map more than the buffer, or refuse it.",
    source="drivers/iommu/iommu.c, iommu_map(): unaligned addresses give -EINVAL; "
    "include/linux/dma-mapping.h, dma_set_min_align_mask().",
    advice="The exporter must give whole pages: a dma-buf's size and its entries are page aligned.",
    example="entry not aligned to 4096: address bits 0x200, length bits 0x0; exporter lab, "
    "importer edu_attach [edu]",
    reads=("maps",),
)

PAGE_BITS: Final = 4095


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    bad = ((maps["address_bits"] | maps["length_bits"]) & np.uint64(PAGE_BITS)) != 0
    for site in step.model.registry.sites.configured_align():
        mask = np.uint64(site.effective.min_align_mask)
        bad |= (maps["site"] == site.id) & ((maps["address_bits"] & mask) != 0)
    if bad.any():
        rows = maps.compress(bad)
        found.rows(RULE, rows, score=rows["entries"], tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    mask = PAGE_BITS
    if site.effective.align_source is Source.CONFIGURED:
        mask |= site.effective.min_align_mask
    address, length = int(row["address_bits"]) & mask, int(row["length_bits"]) & PAGE_BITS
    return Told(
        f"entry not aligned to {mask + 1}: address bits {address:#x}, length bits {length:#x}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "align_mask": mask,
            "address_bits": address,
            "length_bits": length,
            "entries": int(row["entries"]),
            "first_address": int(row["address"]),
        },
    )
