# SPDX-License-Identifier: GPL-2.0-or-later
"""nested: level 2 maps what level 1 translates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.model.matching import DMA, SOURCES
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import context_name, hexed, sized, subject_of

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.levels import Usage
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.ranges import Range
    from dmabuf_tool.rules.findings import Findings, Subject

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
    for (number, source), usage in sorted(model.levels.usage.items()):
        context = model.levels.contexts.find(number)
        if context is None or usage.worst is None or source != DMA or not usage.nested:
            continue
        found.case(
            RULE,
            (number, source),
            partial(_tell, model, context, usage, usage.worst, source),
            when=(usage.first_ns, usage.last_ns),
            score=float(usage.bytes),
            buffers=tuple(sorted(usage.buffers)),
        )


def _tell(
    model: Model, context: Context, usage: Usage, worst: Range, source: int
) -> tuple[Told, Subject]:
    return Told(
        f"{usage.nested} ranges ({sized(usage.nested_bytes)}) in {context_name(context)} map "
        f"addresses that level 1 translates again, the largest {sized(worst.size)} at "
        f"{hexed(worst.start)}",
        {
            "ranges": usage.nested,
            "bytes": usage.nested_bytes,
            "source": SOURCES[source],
            "address": worst.start,
            "size": worst.size,
            "offset": worst.offset,
        },
    ), subject_of(model, context, worst)
