# SPDX-License-Identifier: GPL-2.0-or-later
"""level2-outlives-buffer: a buffer was released while a context mapped it."""

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
    id="level2-outlives-buffer",
    group="B",
    severity=Severity.ERROR,
    title="a buffer was released while a context mapped it",
    holds="The last reference to a buffer went away and a context still has ranges of it.",
    why="The pages go back to the system and the device can still read and write them.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_release(): runs after the last reference; "
    "nothing looks at level 2.",
    advice="Hold a reference to the buffer for each range of it, or take the ranges out before "
    "the attachment is detached.",
    example="1 range (64.0 KiB) at 0x40000000 in private domain 3 outlived its buffer",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.OUTLIVED):
        hand_in(RULE, found, fact, _tell, score=float(number(fact.numbers["bytes"])))


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    ranges = many(number(numbers["ranges"]), "range")
    return Told(
        f"{ranges} ({sized(numbers['bytes'])}) in {context_name(fact.context)} "
        f"outlived their buffer, the first at {hexed(numbers['address'])}",
        numbers,
    )
