# SPDX-License-Identifier: GPL-2.0-or-later
"""p2p-downgraded: an attachment lost peer to peer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer
from dmabuf_tool.schema import Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="p2p-downgraded",
    group="A",
    severity=Severity.WARNING,
    title="an attachment lost peer to peer",
    holds="The importer allows peer to peer (attach ops with allow_peer2peer), and after the "
    "attach the attachment does not have it.",
    why="The exporter moves the buffer to system memory: every access crosses the bus twice, and "
    "writes meant for device memory do not reach it.",
    source="drivers/gpu/drm/amd/amdgpu/amdgpu_dma_buf.c, amdgpu_dma_buf_attach(); "
    "drivers/gpu/drm/xe/xe_dma_buf.c, xe_dma_buf_attach(): pci_p2pdma_distance() below 0.",
    advice="Look at ACS, the PCI topology, BAR sizes (resizable BAR) and runtime power management "
    "of both devices.",
    example="peer to peer was allowed and is lost; exporter amdgpu, importer rdma",
    reads=("attaches",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches of a batch."""
    for attachment in step.attaches:
        asked = attachment.flags & Flag.ALLOW_PEER2PEER
        if asked and not attachment.flags & Flag.PEER2PEER and not attachment.result:
            found.case(
                RULE,
                (attachment.site.id,),
                partial(_tell, found, attachment),
                when=(attachment.ts_ns, attachment.ts_ns),
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )


def _tell(found: Findings, attachment: Attachment) -> tuple[Told, Subject]:
    site = attachment.site
    told = Told(
        f"peer to peer was allowed and is lost; exporter {exporter(site)}, "
        f"importer {importer(site)}",
        {"allow_peer2peer": True, "peer2peer": False},
    )
    return told, found.subject_of(attachment)
