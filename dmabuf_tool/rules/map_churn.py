# SPDX-License-Identifier: GPL-2.0-or-later
"""map-churn: one attachment is mapped and unmapped many times a second."""

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
    id="map-churn",
    group="D",
    severity=Severity.INFO,
    title="an attachment is mapped and unmapped many times a second",
    holds="An attachment was mapped per_second times and more within one second.",
    why="Each pair costs cache maintenance and IOMMU work; an importer that keeps the mapping "
    "pays once.",
    source="Documentation/driver-api/dma-buf.rst: importers may keep a mapping while they use the "
    "buffer.",
    advice="Keep the mapping between uses; sync instead of mapping again.",
    example="mapped 412 times in one second; exporter system, importer edu_attach [edu]",
    reads=("detaches",),
    thresholds=(Threshold("per_second", 200, "maps/s", "maps of one attachment"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attachments that ended in a batch."""
    _judge(ended_attachments(step), found)


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments there are now."""
    _judge(model.registry.attachment_counts.live(), found)


def _judge(rows: Rows, found: Findings) -> None:
    limit = found.threshold(RULE, "per_second")
    judge_attachments(RULE, rows, found, rows["peak"] >= limit, rows["peak"], _tell)


def _tell(attachment: Attachment, row: np.void, found: Findings) -> Told:
    site, peak = attachment.site, int(row["peak"])
    return Told(
        f"mapped {peak} times in one second; exporter {exporter(site)}, importer {importer(site)}",
        {
            "maps_per_second": peak,
            "peak_ns": int(row["peak_ns"]),
            "maps": int(row["maps"]),
            "per_second": found.threshold(RULE, "per_second"),
        },
    )
