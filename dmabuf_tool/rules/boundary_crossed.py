# SPDX-License-Identifier: GPL-2.0-or-later
"""boundary-crossed: an entry crosses the device's segment boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="boundary-crossed",
    group="A",
    severity=Severity.ERROR,
    title="an entry crosses the device's segment boundary",
    holds="The DMA addresses of an entry's first and last byte differ above the device's "
    "segment_boundary_mask. Error if the driver declared the boundary or a user configured it; "
    "warning for the 4 GiB the PCI core sets for every device.",
    why="The device's address counter wraps inside the entry: it reads or writes memory that is "
    "not the buffer's.",
    source="include/linux/dma-mapping.h, dma_get_seg_boundary(); dma-iommu keeps the boundary "
    "(drivers/iommu/dma-iommu.c, __finalise_sg()), dma-direct does not look; kernel/dma/debug.c, "
    "check_sg_segment() warns.",
    advice="The exporter must split entries at the boundary; if the IOMMU made the entry, it is a "
    "bug of dma-iommu: report it.",
    example="entry crosses the boundary 0xffff (declared); exporter lab, importer edu_attach [edu]",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    sites = step.model.registry.sites.effective
    over = maps["crossed_bits"] & ~sites["segment_boundary_mask"][maps["site"]]
    if not over.any():
        return
    rows = maps.compress(over != 0)
    default = sites["boundary_source"][rows["site"]] == Source.DEFAULT
    for some, severity in ((~default, Severity.ERROR), (default, Severity.WARNING)):
        chosen = rows.compress(some)
        found.rows(RULE, chosen, score=chosen["longest_entry"], severity=severity, tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    mask, source = site.effective.segment_boundary_mask, site.effective.boundary_source
    return Told(
        f"entry crosses the boundary {mask:#x} ({source}); "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "segment_boundary_mask": mask,
            "source": str(source),
            "longest_entry": int(row["longest_entry"]),
            "lowest_address": int(row["lowest"]),
            "last_address": int(row["last"]),
            "entries": int(row["entries"]),
        },
    )
