# SPDX-License-Identifier: GPL-2.0-or-later
"""iova-reused-under-level2: a new buffer got an address that a stale range targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import MS, context_name, facts, hand_in, hexed, number, sized

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="iova-reused-under-level2",
    group="B",
    severity=Severity.ERROR,
    title="a new buffer got an address that a stale range targets",
    holds="A level-1 mapping of another buffer was given DMA addresses that a range of a "
    "context still targets, from a mapping that has ended.",
    why="The context now reaches another buffer: silent corruption, or a leak from one "
    "process to another.",
    source="drivers/iommu/iova.c gives a freed IOVA out again at once (iova_rcache).",
    advice="Take the range out of the context before level 1 is unmapped; see the finding "
    "stale-level1.",
    example="64.0 KiB at 0x40000000 in private domain 3 now reach buffer 7: 0xffff0000 was "
    "given out again 1.2 ms after it ended",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.REUSED):
        hand_in(RULE, found, fact, _tell, score=1e18 + number(fact.numbers["size"]))


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    since = number(numbers["stale_ns"]) / MS
    return Told(
        f"{sized(numbers['size'])} at {hexed(numbers['address'])} in {context_name(fact.context)} "
        f"now reach another buffer: {hexed(numbers['dma_address'])} was given out again "
        f"{since:.1f} ms after its mapping ended",
        numbers,
    )
