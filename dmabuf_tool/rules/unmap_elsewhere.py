# SPDX-License-Identifier: GPL-2.0-or-later
"""unmap-elsewhere: an unmap does not fit its map."""

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
    id="unmap-elsewhere",
    group="B",
    severity=Severity.ERROR,
    title="an unmap does not fit its map",
    holds="A table was unmapped through another attachment, in another direction or while the "
    "device was in another domain than at the map, or was never mapped; or a private "
    "domain had nothing to unmap at the address.",
    why="The mapping stays where it was made and leaks, and something else may be taken away.",
    source="include/linux/dma-buf.h: dma_buf_unmap_attachment() takes the attachment, table "
    "and direction of the map.",
    advice="Unmap with the attachment, table and direction that the map was made with, in the "
    "same domain.",
    example="unmap of 1.0 MiB at 0xfff00000 in another direction",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.ELSEWHERE):
        hand_in(RULE, found, fact, _tell)


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    where = numbers.get("at", numbers.get("dma_address"))
    how = {
        "another attachment": "through another attachment than the map's",
        "a table never mapped": "of a table that was never mapped",
        "another direction": "in another direction than the map's",
        "another domain": "while the device was in another domain than at the map",
    }.get(fact.detail, f"in {context_name(fact.context)} where nothing is mapped")
    length = numbers.get("asked", numbers.get("size"))
    return Told(f"unmap of {sized(length)} at {hexed(where)} {how}", numbers)
