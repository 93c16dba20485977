# SPDX-License-Identifier: GPL-2.0-or-later
"""slow-release: the end of a buffer took long."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import judge_buffers
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

_OFTEN: Final = 10
"""One release in so many that takes slow_ms is the exporter's doing, not a busy machine's."""

RULE = Rule(
    id="slow-release",
    group="C",
    severity=Severity.WARNING,
    title="the end of a buffer took long",
    holds="dma_buf_release() took slow_ms and more. Warning if it did more than once, and in one "
    f"of {_OFTEN} releases of the exporter's buffers or more; info for one, and for a few among "
    "many: the caller may have lost the processor meanwhile.",
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
    judge_buffers(RULE, step.released, found, partial(_judge, limit), Severity.INFO)


def check_state(model: Model, found: Findings) -> None:
    """Look at how many of the releases were slow."""
    limit = found.threshold(RULE, "slow_ms")
    for cause, releases in model.registry.releases.items():
        worst, slow = releases.worst, releases.slow(limit)
        if slow > 1 and slow * _OFTEN >= releases.by_ms.total():
            found.case(
                RULE,
                cause,
                partial(_tell, limit, worst, found),
                when=(worst.exported_ns or model.first_ns, worst.released_ns),
                score=float(worst.release_duration_ns),
                count=0,  # check() counts them
            )


def _tell(limit: int, buffer: Buffer, found: Findings) -> tuple[Told, Subject]:
    return _told(limit, buffer), found.subject_of_buffer(buffer)


def _judge(limit: int, buffer: Buffer, counts: np.void) -> tuple[float, Told] | None:
    took = buffer.release_duration_ns
    return (float(took), _told(limit, buffer)) if took >= limit * 1_000_000 else None


def _told(limit: int, buffer: Buffer) -> Told:
    took = buffer.release_duration_ns
    return Told(
        f"release of {size(buffer.size)} took {took / 1e6:.1f} ms; "
        f"exporter {buffer.exporter or 'unknown'}",
        {"duration_ns": took, "size": buffer.size, "slow_ms": limit},
    )
