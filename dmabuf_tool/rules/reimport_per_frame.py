# SPDX-License-Identifier: GPL-2.0-or-later
"""reimport-per-frame: one buffer is attached to one device again and again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import judge_buffers, living

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="reimport-per-frame",
    group="D",
    severity=Severity.INFO,
    title="one buffer is attached to one device again and again",
    holds="A buffer was attached to the same device attaches times and more, at five a second and "
    "more on average.",
    why="Each import attaches, maps, unmaps and detaches; a client that keeps the import pays "
    "once a buffer instead of once a frame.",
    source="drivers/gpu/drm/drm_prime.c: an import is cached only while its handle is open.",
    advice="Import each buffer once and keep the handle while the buffer is in use.",
    example="attached 600 times to card0 at 59.9 a second; exporter vivid",
    reads=("releases",),
    thresholds=(Threshold("attaches", 30, "attaches", "attaches of one buffer and device"),),
)

PER_SECOND = 5


def check(step: Step, found: Findings) -> None:
    """Look at the buffers released in a batch."""
    judge_buffers(RULE, step.releases, found, partial(_judge, found))


def check_state(model: Model, found: Findings) -> None:
    """Look at the buffers there are now."""
    judge_buffers(RULE, living(model), found, partial(_judge, found))


def _judge(found: Findings, buffer: Buffer, counts: np.void) -> tuple[float, Told] | None:
    limit = found.threshold(RULE, "attaches")
    worst: tuple[float, Told] | None = None
    for number, imports in buffer.imports.items():
        span = imports.last_ns - imports.first_ns
        often = span > 0 and (imports.count - 1) * 1_000_000_000 >= PER_SECOND * span
        if imports.count < limit or not often or (worst and imports.count <= worst[0]):
            continue
        device = found.model.registry.devices.get(number)
        rate = (imports.count - 1) * 1e9 / span
        worst = (
            float(imports.count),
            Told(
                f"attached {imports.count} times to {device.name if device else number} at "
                f"{rate:.1f} a second; exporter {buffer.exporter or 'unknown'}",
                {"attaches": imports.count, "per_second": round(rate, 1), "limit": limit},
            ),
        )
    return worst
