# SPDX-License-Identifier: GPL-2.0-or-later
"""late-tighter-attach: a device with tighter limits attached after the first map."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.model.constraints import DEFAULT_MASK, Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.refusals import TRANSIENT
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="late-tighter-attach",
    group="A",
    severity=Severity.WARNING,
    title="a device with tighter limits attached after the first map",
    holds="At the attach the buffer had been mapped already, and a limit of the new device "
    "(address limit where neither is translated, segment size, count or boundary) is tighter than "
    "those of all devices attached then. Warning if its map fails or bounces; else info, but not "
    "for a default (a mask of 32 bits is the kernel's for PCI and platform devices).",
    why="Exporters that allocate at the first map have placed the memory by then, and cannot heed "
    "the newcomer.",
    source="Documentation/driver-api/dma-buf.rst: exporters may defer allocation to the first "
    "dma_buf_map_attachment() to know all attachers.",
    advice="Attach all devices before the first map, or allocate for the most constrained one.",
    example="attached after the first map with a tighter address limit, and its map bounced; "
    "exporter system, importer edu_attach [edu]",
    reads=("attaches", "calls"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches and the maps of a batch."""
    for attachment in step.attaches:
        if attachment.tighter and _is_told(attachment) and _is_late(step, attachment):
            found.case(
                RULE,
                _cause(attachment),
                partial(_tell, found, attachment, "attach"),
                when=(attachment.ts_ns, attachment.ts_ns),
                severity=Severity.INFO,
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )
    calls = step.calls
    if not len(calls):
        return
    lasting = ~np.isin(-calls["result"], list(TRANSIENT))
    troubled = calls.compress(((calls["result"] < 0) & lasting) | (calls["bounces"] != 0))
    for number in np.unique(troubled["attachment"]).tolist():
        one = step.model.registry.attachments.get(number)
        if one is None or not one.tighter or not _is_late(step, one):
            continue
        for what, some in (
            ("failed", troubled["result"] < 0),
            ("bounced", troubled["result"] >= 0),
        ):
            times = troubled["ts_ns"][some & (troubled["attachment"] == number)]
            if len(times):
                found.case(
                    RULE,
                    _cause(one),
                    partial(_tell, found, one, what),
                    when=(int(times.min()), int(times.max())),
                    score=1.0 if what == "failed" else 0.0,
                    buffers=(one.buffer.id,) if one.buffer else (),
                    count=len(times),
                )


def _cause(attachment: Attachment) -> tuple[int, str]:
    """Device and exporter: whichever processes share their buffers, the cause is one."""
    return attachment.device, attachment.site.exporter


def _is_told(attachment: Attachment) -> bool:
    """Whether somebody declared a tighter limit, or configured it; a default was not meant."""
    force = attachment.site.effective
    default = force.address_source is not Source.CONFIGURED and force.address_limit == DEFAULT_MASK
    return not default or attachment.tighter != ("address limit",)


def _is_late(step: Step, attachment: Attachment) -> bool:
    if attachment.buffer is None:
        return False
    counts = step.model.registry.counts_of(attachment.buffer.id)
    return counts is not None and 0 < int(counts["first_map"]) <= attachment.seq


def _tell(found: Findings, attachment: Attachment, what: str) -> tuple[Told, Subject]:
    site = attachment.site
    ends = {"attach": "", "failed": ", and its map failed", "bounced": ", and its map bounced"}
    told = Told(
        f"attached after the first map with a tighter {' and '.join(attachment.tighter)}"
        f"{ends[what]}; exporter {exporter(site)}, importer {importer(site)}",
        {
            "tighter": ", ".join(attachment.tighter),
            "map": None if what == "attach" else what,
            "address_limit": site.effective.address_limit,
            "max_segment_size": site.effective.max_segment_size,
            "max_segment_count": site.effective.max_segment_count,
        },
    )
    return told, found.subject_of(attachment)
