# SPDX-License-Identifier: GPL-2.0-or-later
"""level2-map: buffers are mapped in a context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.rules.base import Rule, Severity
from dmabuf_tool.rules.two_levels import Used, context_name, hand_in_usage, sized
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.usage import Usage
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="level2-map",
    group="B",
    severity=Severity.INFO,
    title="buffers are mapped in a context",
    holds="A range of a buffer was mapped in a private IOMMU domain or a GPU VM. The evidence "
    "says from what: DMA addresses of level 1, or pages.",
    why="The DMA API knows devices, not contexts; this is where a buffer is in a context of "
    "its own.",
    source="include/linux/iommu.h, iommu_map(); include/drm/drm_gpuvm.h, drm_gpuva_insert().",
    advice="Nothing to do. report --by context shows the whole table.",
    example="12 ranges of 4 buffers (3.0 MiB) mapped in private domain 3 from DMA addresses, "
    "the largest 1.0 MiB at 0x40000000",
)


def check_state(model: Model, found: Findings) -> None:
    """Look at what was mapped in each context since the start."""
    hand_in_usage(RULE, model, found, _USED)


def _words(context: Context, usage: Usage, source: int) -> str:
    return (
        f"{many(usage.count, 'range')} of {many(len(usage.buffers), 'buffer')} "
        f"({sized(usage.bytes)}) mapped in "
        f"{context_name(context)} from {SOURCES[source]}"
    )


_USED = Used(
    holds=lambda source, usage: True,
    counts=lambda usage: (usage.count, usage.bytes),
    words=_words,
)
