# SPDX-License-Identifier: GPL-2.0-or-later
"""level2-map: buffers are mapped in a context."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import context_name, hexed, sized, subject_of

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.levels import Usage
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.ranges import Range
    from dmabuf_tool.rules.findings import Findings, Subject

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
    for (number, source), usage in sorted(model.levels.usage.items()):
        context = model.levels.contexts.find(number)
        if context is None or usage.worst is None:
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
        f"{usage.count} ranges of {len(usage.buffers)} buffers ({sized(usage.bytes)}) mapped in "
        f"{context_name(context)} from {SOURCES[source]}, the largest {sized(worst.size)} at "
        f"{hexed(worst.start)}",
        {
            "ranges": usage.count,
            "bytes": usage.bytes,
            "source": SOURCES[source],
            "address": worst.start,
            "size": worst.size,
            "offset": worst.offset,
        },
    ), subject_of(model, context, worst)
