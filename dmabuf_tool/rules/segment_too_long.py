# SPDX-License-Identifier: GPL-2.0-or-later
"""segment-too-long: an entry is longer than the device's maximum segment size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="segment-too-long",
    group="A",
    severity=Severity.WARNING,
    title="an entry is longer than the device's maximum segment size",
    holds="The DMA length of an entry is above the device's max_segment_size. Warning if the "
    "driver declared it or a user configured it; info if it is the default (64 KiB, the "
    "kernel's without dma_parms and the PCI core's for every PCI device).",
    why="A device with a length field that is too small for the entry transfers a part of it. "
    "Heaps, udmabuf and drm_prime ignore the importer's limit and dma-direct does not check it, "
    "so nothing fails before the device does.",
    source="include/linux/dma-mapping.h, dma_get_max_seg_size(); drivers/pci/probe.c, "
    "pci_device_add(); kernel/dma/debug.c, check_sg_segment().",
    advice="The exporter must split entries; or, if the device can take more, its driver should "
    "call dma_set_max_seg_size().",
    example="entry of 1.0 MiB, the device declares 64.0 KiB at most; exporter system",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    sites = step.model.registry.sites.effective
    long = maps["longest_entry"] > sites["max_segment_size"][maps["site"]]
    if not long.any():
        return
    rows = maps.compress(long)
    default = sites["segment_size_source"][rows["site"]] == Source.DEFAULT
    for some, severity in ((~default, Severity.WARNING), (default, Severity.INFO)):
        chosen = rows.compress(some)
        found.rows(RULE, chosen, score=chosen["longest_entry"], severity=severity, tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    limit, source = site.effective.max_segment_size, site.effective.segment_size_source
    says = {
        Source.DECLARED: f"the device declares {size(limit)} at most",
        Source.CONFIGURED: f"{size(limit)} at most is configured",
    }.get(source, f"the default is {size(limit)} at most and the driver sets nothing else")
    return Told(
        f"entry of {size(int(row['longest_entry']))}, {says}; exporter {exporter(site)}",
        {
            "longest_entry": int(row["longest_entry"]),
            "max_segment_size": limit,
            "source": str(source),
            "entries": int(row["entries"]),
            "size": int(row["size"]),
        },
    )
