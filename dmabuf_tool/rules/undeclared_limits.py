# SPDX-License-Identifier: GPL-2.0-or-later
"""undeclared-limits: a device attached that says nothing of its limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import importer

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="undeclared-limits",
    group="A",
    severity=Severity.INFO,
    title="a device attached that says nothing of its limits",
    holds="The attached device has no dma_parms: its bus gives it none, and its driver set none.",
    why="Exporters that ask get the kernel's default of 64 KiB a segment and no boundary, whether "
    "it is right or not.",
    source="include/linux/dma-mapping.h, dma_get_max_seg_size(): dev->dma_parms is NULL. PCI, "
    "platform and AMBA devices have them, misc, USB and virtual ones do not.",
    advice="Give the device dma_parms in its driver, and call dma_set_max_seg_size() and "
    "dma_set_seg_boundary().",
    example="device has no dma_parms: 64 KiB a segment is assumed; importer edu_attach [edu]",
    reads=("attaches",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches of a batch."""
    for attachment in step.attaches:
        site = attachment.site
        if site.id and not attachment.result and not site.limits.has_parms:
            found.case(
                RULE,
                (attachment.device,),
                partial(_tell, found, attachment),
                when=(attachment.ts_ns, attachment.ts_ns),
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )


def _tell(found: Findings, attachment: Attachment) -> tuple[Told, Subject]:
    site = attachment.site
    told = Told(
        f"device has no dma_parms: 64 KiB a segment is assumed; importer {importer(site)}",
        {"has_dma_parms": False, "max_segment_size": site.effective.max_segment_size},
    )
    return told, found.subject_of(attachment)
