# SPDX-License-Identifier: GPL-2.0-or-later
"""partial-unmap: an unmap unmapped another size than it was asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import context_name, facts, hand_in, hexed, sized

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="partial-unmap",
    group="B",
    severity=Severity.WARNING,
    title="an unmap unmapped another size than it was asked to",
    holds="An unmap in a private domain returned less, or more, than was asked.",
    why="What is left stays mapped and reachable; what went beyond is missing for somebody else.",
    source="drivers/iommu/iommu.c, __iommu_unmap(): stops at the first hole, and a large page "
    "goes as a whole.",
    advice="Unmap what was mapped, in the same ranges; check what iommu_unmap() returns.",
    example="16.0 KiB of 64.0 KiB unmapped at 0x40000000 in private domain 3",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.PARTIAL):
        hand_in(RULE, found, fact, _tell)


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    return Told(
        f"{sized(numbers['unmapped'])} of {sized(numbers['asked'])} unmapped at "
        f"{hexed(numbers['at'])} in {context_name(fact.context)}",
        numbers,
    )
