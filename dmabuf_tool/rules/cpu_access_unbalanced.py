# SPDX-License-Identifier: GPL-2.0-or-later
"""cpu-access-unbalanced: begin and end of CPU access do not match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Told
from dmabuf_tool.rules.summaries import judge_buffers
from dmabuf_tool.rules.wording import many

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="cpu-access-unbalanced",
    group="C",
    severity=Severity.WARNING,
    title="begin and end of CPU access do not match",
    holds="A buffer that was exported during the trace was released with more begins of CPU "
    "access than ends, or the reverse (those that worked count).",
    why="An end without a begin writes back nothing the CPU read before; a begin without an end "
    "leaves what the CPU wrote in its caches, where the device does not see it.",
    source="Documentation/driver-api/dma-buf.rst, CPU access: DMA_BUF_IOCTL_SYNC with "
    "DMA_BUF_SYNC_START and DMA_BUF_SYNC_END come in pairs.",
    advice="Bracket every access of the CPU by DMA_BUF_SYNC_START and DMA_BUF_SYNC_END, in error "
    "paths too.",
    example="released after 30 CPU accesses with 2 ends missing; exporter system",
    reads=("releases",),
    on_loss=OnLoss.WITHHOLD,
)


def check(step: Step, found: Findings) -> None:
    """Look at the buffers released in a batch."""
    old_ones_left_out = [one for one in step.releases if not one.preexisting]
    judge_buffers(RULE, old_ones_left_out, found, _judge)


def _judge(buffer: Buffer, counts: np.void) -> tuple[float, Told] | None:
    open_ones = int(counts["cpu_begins"])
    if not open_ones:
        return None
    missing = many(abs(open_ones), "end" if open_ones > 0 else "begin")
    return float(abs(open_ones)), Told(
        f"released after {many(int(counts['cpu_accesses']), 'CPU access', 'CPU accesses')} with "
        f"{missing} missing; exporter {buffer.exporter or 'unknown'}",
        {
            "cpu_accesses": int(counts["cpu_accesses"]),
            "begins_less_ends": open_ones,
            "size": buffer.size,
        },
    )
