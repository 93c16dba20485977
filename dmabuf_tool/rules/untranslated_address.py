# SPDX-License-Identifier: GPL-2.0-or-later
"""untranslated-address: a DMA address that the device's domain does not translate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer
from dmabuf_tool.schema import SG_DMA_BUS_ADDRESS, Flag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.memory import DeviceMemory
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Finding, Findings

RULE = Rule(
    id="untranslated-address",
    group="A",
    severity=Severity.ERROR,
    title="a DMA address has no translation in the device's domain",
    holds="The device is behind a translating domain, the table has addresses that are not bus "
    "addresses, nothing was entered into the IOMMU during the attachment's first map, though "
    "maps of other buffers in that domain do, and the addresses are the pages' physical ones or "
    "lie in a PCI BAR. Where they are neither: info, as they may have been entered before.",
    why="The IOMMU drops every access: writes vanish, reads fault.",
    source="drivers/iommu/dma-iommu.c, iommu_dma_map_sg() enters every table by iommu_map_sg(). "
    "An exporter that hands out physical or BAR addresses goes around it "
    "(NVIDIA/open-gpu-kernel-modules issue 1324).",
    advice="The exporter must map by the DMA API for the importer's device (dma_map_sgtable(), or "
    "dma_map_resource() for device memory).",
    example="addresses 0x4000000000-0x4000ffffff (BAR 1 of 0000:41:00.0) are not translated in "
    "the device's domain; exporter nvidia, importer rdma",
    reads=("maps",),
    on_loss=OnLoss.WITHHOLD,
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    sites = step.model.registry.sites.effective
    bad = sites["translated"][maps["site"]] & (maps["iommu_bytes"] == 0)
    bad &= (maps["dma_flags"] & SG_DMA_BUS_ADDRESS) == 0
    bad &= (maps["flags"] & (Flag.IN_ATTACH | Flag.CACHED)) == 0
    # Exporters may keep their table for later maps (vb2_dc_dmabuf_ops_map() does): the first one
    # of an attachment enters it.
    if not bad.any():
        return
    counts = step.model.registry.attachment_counts
    first = counts.values("first_map", maps["attachment"], 0)
    bad &= first == maps["seq"] + np.uint64(1)
    bad &= ~counts.values("preexisting", maps["attachment"], 1)
    rows = maps.compress(bad)
    known = rows["physical"] | _in_bars(rows, step.model.memory)
    for some, severity in ((known, Severity.ERROR), (~known, Severity.INFO)):
        told = rows.compress(some)
        found.rows(
            RULE,
            told,
            score=told["total"],
            split=told["domain"],
            severity=severity,
            tell=partial(_tell, step.model.memory),
        )


def _in_bars(rows: Rows, memory: DeviceMemory) -> NDArray[np.bool_]:
    pairs = zip(rows["lowest"].tolist(), rows["last"].tolist(), strict=True)
    return np.array([memory.find(low, last) is not None for low, last in pairs], np.bool_)


def confirm(finding: Finding, model: Model) -> bool:
    """Whether other maps in the domain were seen to enter the IOMMU: the probe is there."""
    counts = model.registry.domain_counts
    position = counts.position(finding.subject.domain)
    return position >= 0 and int(counts.rows["iommu_maps"][position]) > 0


def _tell(memory: DeviceMemory, row: np.void, site: Site) -> Told:
    low, last = int(row["lowest"]), int(row["last"])
    bar = memory.find(low, last)
    what = f"{bar}" if bar else "physical" if row["physical"] else "unknown"
    addresses = f"addresses {low:#x}-{last:#x}"
    if bar:
        says = f"{addresses} ({bar}) are not translated in the device's domain"
    elif row["physical"]:
        says = f"{addresses} (physical) are not translated in the device's domain"
    else:
        says = f"{addresses} were not entered into the device's domain while they were mapped"
    return Told(
        f"{says}; exporter {exporter(site)}, importer {importer(site)}",
        {
            "lowest_address": low,
            "last_address": last,
            "what": what,
            "domain": int(row["domain"]),
            "iommu_bytes": 0,
            "size": int(row["size"]),
        },
        ""
        if bar or row["physical"]
        else "None, if the exporter entered them before the attach: "
        "a device of the same domain may have been given them. Else it must map by the DMA API.",
    )
