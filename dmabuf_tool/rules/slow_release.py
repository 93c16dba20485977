# SPDX-License-Identifier: GPL-2.0-or-later
"""slow-release: the end of a buffer took long."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import judge_buffers
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="slow-release",
    group="C",
    severity=Severity.WARNING,
    title="the end of a buffer took long",
    holds="dma_buf_release() took slow_ms and more.",
    why="It runs in the task that drops the last reference: closing a descriptor or exiting "
    "hangs for as long.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_release() calls the exporter's release op, which "
    "frees the memory.",
    advice="Look at what the exporter does when it frees: waiting for a device, zeroing, "
    "taking locks.",
    example="release of 256.0 MiB took 132.0 ms; exporter system",
    reads=("released",),
    thresholds=(Threshold("slow_ms", 50, "ms", "time in release"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the buffers whose release returned in a batch."""
    limit = found.threshold(RULE, "slow_ms")
    judge_buffers(RULE, step.released, found, partial(_judge, limit))


def _judge(limit: int, buffer: Buffer, counts: np.void) -> tuple[float, Told] | None:
    took = buffer.release_duration_ns
    if took < limit * 1_000_000:
        return None
    return float(took), Told(
        f"release of {size(buffer.size)} took {took / 1e6:.1f} ms; "
        f"exporter {buffer.exporter or 'unknown'}",
        {"duration_ns": took, "size": buffer.size, "slow_ms": limit},
    )
