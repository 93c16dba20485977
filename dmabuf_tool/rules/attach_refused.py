# SPDX-License-Identifier: GPL-2.0-or-later
"""attach-refused: dma_buf_dynamic_attach() returned an errno."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.refusals import ATTACH_REASONS, TRANSIENT, negative
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="attach-refused",
    group="A",
    severity=Severity.ERROR,
    title="an attach was refused",
    holds="dma_buf_attach() or dma_buf_dynamic_attach() returned an errno; info if a signal "
    "interrupted it or it is to be repeated.",
    why="The device cannot use the buffer at all; the application sees an import that fails.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_dynamic_attach(): the exporter's attach op "
    "decides; up to 6.14 it may also pin and map inside.",
    advice="Have the refusing exporter's driver checked for what it supports, or let the other "
    "device export.",
    example="attach refused with -EOPNOTSUPP: the exporter cannot share this buffer with the "
    "device; exporter vfio, importer i915_gem_prime_import [i915]",
    reads=("attaches",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches of a batch."""
    for attachment in step.attaches:
        if attachment.result:
            found.case(
                RULE,
                (attachment.site.id, attachment.device, attachment.result),
                partial(_tell, found, attachment),
                when=(attachment.ts_ns, attachment.ts_ns),
                severity=Severity.INFO if -attachment.result in TRANSIENT else None,
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )


def _tell(found: Findings, attachment: Attachment) -> tuple[Told, Subject]:
    site = attachment.site
    reason = ATTACH_REASONS.get(-attachment.result, "the exporter refused")
    if -attachment.result in TRANSIENT:
        reason = "interrupted, the caller repeats it"
    told = Told(
        f"attach refused with {negative(attachment.result)}: {reason}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "errno": negative(attachment.result),
            "step": "attach",
            "reason": reason,
            "importer": str(site.importer) if site.importer else None,
        },
    )
    return told, found.subject_of(attachment)
