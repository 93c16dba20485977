# SPDX-License-Identifier: GPL-2.0-or-later
"""domain-switched-while-mapped: a device changed its domain while it had mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import context_name, facts, hand_in, hexed, number, sized
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="domain-switched-while-mapped",
    group="B",
    severity=Severity.ERROR,
    title="a device changed its domain while it had mappings",
    holds="A device, or its group, was attached to another domain while level-1 mappings of "
    "the domain it left were live.",
    why="The DMA addresses are dead in the new domain: the device faults on them, or "
    "reaches what the new domain has there.",
    source="drivers/iommu/iommu.c, __iommu_attach_device(); drivers/iommu/dma-iommu.c unmaps "
    "through the default domain, whichever is attached.",
    advice="Unmap before the switch and map again after it; or map what is needed into the new "
    "domain under its own addresses.",
    example="3 mappings (24.9 MiB) of device 0000:00:03.0 died when it went from DMA-FQ 1 to "
    "private domain 2",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.SWITCHED):
        hand_in(RULE, found, fact, _tell, score=float(number(fact.numbers["bytes"])))


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    old = model.levels.contexts.find(number(numbers["old_domain"]))
    device = model.registry.devices.get(fact.device)
    name = device.name if device is not None else str(fact.device)
    mappings = many(number(numbers["mappings"]), "mapping")
    return Told(
        f"{mappings} ({sized(numbers['bytes'])}) of {name} died when it went "
        f"from {context_name(old)} to {context_name(fact.context)}; the largest at "
        f"{hexed(numbers['dma_address'])}",
        numbers,
    )
