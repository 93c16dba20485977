# SPDX-License-Identifier: GPL-2.0-or-later
"""nested: level 2 maps what level 1 translates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.matching import DMA
from dmabuf_tool.rules.base import Rule, Severity
from dmabuf_tool.rules.two_levels import Used, context_name, hand_in_usage, sized
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.usage import Usage
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="nested",
    group="B",
    severity=Severity.INFO,
    title="level 2 maps what level 1 translates",
    holds="Level 1 goes through a translating IOMMU domain and its DMA addresses are mapped "
    "again in a context.",
    why="Both translations cost at every access, and both must be taken down in order: "
    "level 2 first.",
    source="drivers/iommu/dma-iommu.c gives the IOVAs; who maps them again is a driver with "
    "its own MMU.",
    advice="Nothing to do, if it is meant to be so. Without it: an identity domain for the "
    "device (iommu.passthrough=1) where that is acceptable.",
    example="12 ranges (3.0 MiB) in private domain 3 map addresses that DMA-FQ 1 translates again",
)


def check_state(model: Model, found: Findings) -> None:
    """Look at what was mapped in each context since the start."""
    hand_in_usage(RULE, model, found, _USED)


def _words(context: Context, usage: Usage, source: int) -> str:
    return (
        f"{many(usage.nested, 'range')} ({sized(usage.nested_bytes)}) in {context_name(context)} "
        f"{'maps' if usage.nested == 1 else 'map'} addresses that level 1 translates again"
    )


_USED = Used(
    holds=lambda source, usage: source == DMA and bool(usage.nested),
    counts=lambda usage: (usage.nested, usage.nested_bytes),
    words=_words,
)
