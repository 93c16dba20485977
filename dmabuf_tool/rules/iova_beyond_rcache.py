# SPDX-License-Identifier: GPL-2.0-or-later
"""iova-beyond-rcache: large buffers are mapped at a high rate through an IOMMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import ended_attachments, judge_attachments
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="iova-beyond-rcache",
    group="D",
    severity=Severity.INFO,
    title="large buffers are mapped at a high rate through an IOMMU",
    holds="An attachment of a translated device was mapped per_second times and more within one "
    "second, with more than 128 KiB a map on average.",
    why="I/O virtual addresses of more than 128 KiB do not come from the per-CPU caches: every "
    "map and unmap takes the lock of the address tree.",
    source="drivers/iommu/iova.c, IOVA_RANGE_CACHE_MAX_SIZE (32 pages).",
    advice="Keep the mapping between uses.",
    example="8.0 MiB mapped 120 times in one second through the IOMMU; exporter system, importer "
    "edu_attach [edu]",
    reads=("detaches",),
    thresholds=(Threshold("per_second", 100, "maps/s", "maps of one attachment"),),
)

RCACHE_BYTES = 128 << 10


def check(step: Step, found: Findings) -> None:
    """Look at the attachments that ended in a batch."""
    _judge(ended_attachments(step), found)


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments there are now."""
    _judge(model.registry.attachment_counts.live(), found)


def _judge(rows: Rows, found: Findings) -> None:
    limit = found.threshold(RULE, "per_second")
    sites = found.model.registry.sites.effective
    large = rows["bytes"] > rows["maps"] * RCACHE_BYTES
    cases = (rows["peak"] >= limit) & large & sites["translated"][rows["site"]]
    judge_attachments(RULE, rows, found, cases, rows["peak"], _tell)


def _tell(attachment: Attachment, row: np.void, found: Findings) -> Told:
    site, peak = attachment.site, int(row["peak"])
    mean = int(row["bytes"]) // max(1, int(row["maps"]))
    return Told(
        f"{size(mean)} mapped {peak} times in one second through the IOMMU; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "maps_per_second": peak,
            "mean_bytes": mean,
            "per_second": found.threshold(RULE, "per_second"),
        },
    )
