# SPDX-License-Identifier: GPL-2.0-or-later
"""repeated-cache-maintenance: maps write back caches nobody has touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import ended_attachments, judge_attachments
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="repeated-cache-maintenance",
    group="D",
    severity=Severity.INFO,
    title="maps write back caches nobody has touched",
    holds="A non-coherent device mapped an attachment repeats times and more with no CPU access "
    "(begin or end) to the buffer since the map before, and without DMA_ATTR_SKIP_CPU_SYNC.",
    why="Every such map and unmap walks the whole buffer through the CPU's caches for nothing.",
    source="kernel/dma/direct.c, dma_direct_map_sg() and dma_direct_unmap_sg() call "
    "arch_sync_dma_for_device() and arch_sync_dma_for_cpu().",
    advice="Keep the mapping, or map with DMA_ATTR_SKIP_CPU_SYNC and sync when the CPU was there.",
    example="348 of 350 maps had nothing to write back; exporter system, importer vb2-dma-contig",
    reads=("detaches",),
    thresholds=(Threshold("repeats", 100, "maps", "needless maps of one attachment"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attachments that ended in a batch."""
    _judge(ended_attachments(step), found)


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments there are now."""
    _judge(model.registry.attachment_counts.live(), found)


def _judge(rows: Rows, found: Findings) -> None:
    limit = found.threshold(RULE, "repeats")
    judge_attachments(RULE, rows, found, rows["repeated"] >= limit, rows["repeated"], _tell)


def _tell(attachment: Attachment, row: np.void, found: Findings) -> Told:
    site = attachment.site
    return Told(
        f"{int(row['repeated'])} of {int(row['maps'])} maps had nothing to write back; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "needless_maps": int(row["repeated"]),
            "maps": int(row["maps"]),
            "bytes": int(row["bytes"]),
            "repeats": found.threshold(RULE, "repeats"),
        },
    )
