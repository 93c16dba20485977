# SPDX-License-Identifier: GPL-2.0-or-later
"""whole-buffer-sync: the CPU syncs a large buffer many times a second."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import judge_buffers, living
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="whole-buffer-sync",
    group="D",
    severity=Severity.INFO,
    title="the CPU syncs a large buffer many times a second",
    holds="A buffer of 1 MiB and more that a non-coherent device is attached to had per_second "
    "begins and ends of CPU access and more within one second.",
    why="DMA_BUF_IOCTL_SYNC has no range: each one goes through the whole buffer.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_ioctl(): struct dma_buf_sync has flags only.",
    advice="Use smaller buffers for what the CPU touches, or an uncached heap.",
    example="8.3 MiB synced 120 times in one second; exporter system",
    reads=("releases",),
    thresholds=(Threshold("per_second", 60, "syncs/s", "begins and ends of one buffer"),),
)

LARGE = 1 << 20


def check(step: Step, found: Findings) -> None:
    """Look at the buffers released in a batch."""
    judge_buffers(RULE, step.releases, found, partial(_judge, found))


def check_state(model: Model, found: Findings) -> None:
    """Look at the buffers there are now."""
    judge_buffers(RULE, living(model), found, partial(_judge, found))


def _judge(found: Findings, buffer: Buffer, counts: np.void) -> tuple[float, Told] | None:
    limit, peak = found.threshold(RULE, "per_second"), int(counts["peak"])
    if buffer.size < LARGE or peak < limit:
        return None
    if all(site.effective.coherent for site in buffer.together):
        return None
    return float(peak), Told(
        f"{size(buffer.size)} synced {peak} times in one second; "
        f"exporter {buffer.exporter or 'unknown'}",
        {
            "syncs_per_second": peak,
            "cpu_accesses": int(counts["cpu_accesses"]),
            "size": buffer.size,
            "per_second": limit,
        },
    )
