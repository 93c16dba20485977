# SPDX-License-Identifier: GPL-2.0-or-later
"""context-leak: a context outlives its owner."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.two_levels import MS, context_name, person, sized, subject_of
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.ranges import Range
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="context-leak",
    group="B",
    severity=Severity.WARNING,
    title="a context outlives its owner",
    holds="A context that was made during the trace still maps buffers grace_ms after the "
    "process that owns it exited.",
    why="Its ranges, the level-1 mappings under them and the buffers they hold are never "
    "given back.",
    source="Drivers free an address space when the file it was made through is closed; nothing "
    "else does.",
    advice="Look for the missing iommu_domain_free() or drm_gpuvm_put() in the driver that "
    "made the context.",
    example="private domain 3 still maps 64.0 KiB of 1 buffers 1.2 s after app (pid 312) exited",
    on_loss=OnLoss.WITHHOLD,
    thresholds=(Threshold("grace_ms", 250, "ms", "time a driver has to clean up after an exit"),),
)


def check_state(model: Model, found: Findings) -> None:
    """Look at the contexts that are there now."""
    grace_ns = found.threshold(RULE, "grace_ms") * MS
    for context in list(model.levels.contexts.live.values()):
        if not context.is_private or not context.born_ns or not len(context.ranges):
            continue
        exited = model.processes.exit_after(context.tgid, context.born_ns)
        if exited is None or exited + grace_ns > model.last_ns:
            continue
        ranges = list(context.ranges)
        found.case(
            RULE,
            (context.id,),
            partial(_tell, model, context, ranges, exited),
            when=(context.born_ns, model.last_ns),
            score=float(sum(one.size for one in ranges)),
            buffers=tuple(sorted({one.buffer for one in ranges})),
        )


def _tell(model: Model, context: Context, ranges: list[Range], exited: int) -> tuple[Told, Subject]:
    total = sum(one.size for one in ranges)
    buffers = {one.buffer for one in ranges}
    since = (model.last_ns - exited) / 1e9
    return Told(
        f"{context_name(context)} still maps {sized(total)} of {many(len(buffers), 'buffer')} "
        f"{since:.1f} s after {person(model, context.tgid)} exited",
        {
            "ranges": len(ranges),
            "bytes": total,
            "since_exit_ns": model.last_ns - exited,
            "address": ranges[0].start,
        },
    ), subject_of(model, context, ranges[0])
