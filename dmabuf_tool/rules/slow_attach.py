# SPDX-License-Identifier: GPL-2.0-or-later
"""slow-attach: an attach took long."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="slow-attach",
    group="D",
    severity=Severity.INFO,
    title="an attach took long",
    holds="dma_buf_attach() took slow_ms and more.",
    why="It holds up the import: a frame is late. Up to 6.14 an attach may pin and map, or wait "
    "for the buffer to move.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_dynamic_attach() calls the exporter's attach op.",
    advice="Import before the buffer is needed; look at what the exporter does in attach.",
    example="attach took 84.0 ms; exporter amdgpu, importer drm_gem_prime_import_dev [drm]",
    reads=("attaches",),
    thresholds=(Threshold("slow_ms", 50, "ms", "time in attach"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches of a batch."""
    limit = found.threshold(RULE, "slow_ms")
    for attachment in step.attaches:
        if attachment.duration_ns >= limit * 1_000_000:
            found.case(
                RULE,
                (attachment.site.id,),
                partial(_tell, found, attachment, limit),
                when=(attachment.ts_ns, attachment.ts_ns),
                score=float(attachment.duration_ns),
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )


def _tell(found: Findings, attachment: Attachment, limit: int) -> tuple[Told, Subject]:
    site = attachment.site
    told = Told(
        f"attach took {attachment.duration_ns / 1e6:.1f} ms; exporter {exporter(site)}, "
        f"importer {importer(site)}",
        {"duration_ns": attachment.duration_ns, "slow_ms": limit, "result": attachment.result},
    )
    return told, found.subject_of(attachment)
