# SPDX-License-Identifier: GPL-2.0-or-later
"""iotlb-sync-storm: unmaps flush the IOTLB many times a second."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.findings import Subject
from dmabuf_tool.schema import DomainType

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="iotlb-sync-storm",
    group="D",
    severity=Severity.INFO,
    title="unmaps flush the IOTLB many times a second",
    holds="In a strict DMA domain (type DMA, not DMA-FQ) unmaps of dma-bufs took per_second ranges "
    "and more out of the IOMMU within one second.",
    why="In strict mode every unmap waits until the IOMMU has flushed its translations.",
    source="drivers/iommu/dma-iommu.c, __iommu_dma_unmap(): iommu_iotlb_sync() unless the domain "
    "queues flushes.",
    advice="Keep mappings, or allow lazy flushing (iommu.strict=0, or DMA-FQ in the group's type).",
    example="2,400 ranges unmapped in one second in a strict domain",
    thresholds=(Threshold("per_second", 1000, "unmaps/s", "ranges unmapped in one domain"),),
)

STRICT = DomainType.PAGING | DomainType.DMA_API


def check_state(model: Model, found: Findings) -> None:
    """Look at what was counted for each domain."""
    limit = found.threshold(RULE, "per_second")
    for row in model.registry.domain_counts.live():
        domain = model.registry.domains.get(int(row["id"]))
        if domain is None or domain.type != STRICT or int(row["peak"]) < limit:
            continue
        when = int(row["peak_ns"])
        found.case(
            RULE,
            (domain.id,),
            partial(_tell, model, domain.id, int(row["peak"]), limit),
            when=(when, when),
            score=float(row["peak"]),
        )


def _tell(model: Model, domain: int, peak: int, limit: int) -> tuple[Told, Subject]:
    inside = [one for one in model.registry.devices.values() if one.domain == domain]
    told = Told(
        f"{peak:,} ranges unmapped in one second in a strict domain",
        {"unmaps_per_second": peak, "domain": domain, "per_second": limit},
    )
    device = inside[0] if inside else None
    return told, Subject(site=model.registry.sites[0], device=device, domain=domain)
