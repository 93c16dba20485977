# SPDX-License-Identifier: GPL-2.0-or-later
"""moved-without-notice: a buffer moved under a mapping that lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Told
from dmabuf_tool.rules.two_levels import MS, facts, hand_in, hexed, number

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="moved-without-notice",
    group="B",
    severity=Severity.ERROR,
    title="a buffer moved under a mapping that lives",
    holds="A map gave other pages than a live mapping of the same buffer has, and the "
    "importers were not told (no invalidation) in between.",
    why="Two devices work on different memory that both take for the buffer; the old pages "
    "may be somebody else's by now.",
    source="Documentation/driver-api/dma-buf.rst: an exporter pins, or calls "
    "dma_buf_move_notify() (dma_buf_invalidate_mappings() from 7.1), before it moves.",
    advice="The exporter must invalidate before it moves a buffer, and must not move what a "
    "static importer has mapped.",
    example="buffer moved: mapped at 0xfff00000 12.0 ms before, now at 0xffe00000 with other pages",
    reads=("hazards",),
    on_loss=OnLoss.WITHHOLD,
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.MOVED):
        hand_in(RULE, found, fact, _tell)


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    since = number(numbers["mapped_for_ns"]) / MS
    return Told(
        f"buffer moved: a mapping at {hexed(numbers['old_dma_address'])}, {since:.1f} ms old, "
        f"lives, and a new one at {hexed(numbers['new_dma_address'])} has other pages",
        numbers,
    )
