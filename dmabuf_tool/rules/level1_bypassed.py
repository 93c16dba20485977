# SPDX-License-Identifier: GPL-2.0-or-later
"""level1-bypassed: level 2 is fed from pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.matching import PAGES
from dmabuf_tool.rules.base import Rule, Severity
from dmabuf_tool.rules.two_levels import Used, context_name, hand_in_usage, sized
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.usage import Usage
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="level1-bypassed",
    group="B",
    severity=Severity.WARNING,
    title="level 2 is fed from pages",
    holds="A context maps the pages of a buffer, not the DMA addresses level 1 gave for them. "
    "Warning if a table had no pages (orig_nents = 0, or a debug kernel that hides "
    "them), else info.",
    why="What the DMA API does at a map is done for other addresses: caches, bounce buffers "
    "and the device's limits may not be those of the path the device really uses.",
    source="include/linux/dma-buf.h forbids importers to use the struct pages of a table; "
    "include/linux/iommu.h, iommu_map_sg() takes sg_phys().",
    advice="The importer should map sg_dma_address() of the nents entries; or get pages in "
    "another way than dma-buf.",
    example="4 ranges (1.0 MiB) in private domain 3 are fed from pages, level 1 is bypassed",
)


def check_state(model: Model, found: Findings) -> None:
    """Look at what was mapped in each context since the start."""
    hand_in_usage(RULE, model, found, _USED)


def _words(context: Context, usage: Usage, source: int) -> str:
    return (
        f"{many(usage.count, 'range')} ({sized(usage.bytes)}) in {context_name(context)} fed from "
        "pages, level 1 is bypassed"
        + (f"; {usage.pageless} of tables without pages" if usage.pageless else "")
    )


_USED = Used(
    holds=lambda source, usage: source == PAGES,
    counts=lambda usage: (usage.count, usage.bytes),
    words=_words,
    severity=lambda usage: Severity.WARNING if usage.pageless else Severity.INFO,
)
