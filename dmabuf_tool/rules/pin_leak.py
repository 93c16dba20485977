# SPDX-License-Identifier: GPL-2.0-or-later
"""pin-leak: a pin was not taken back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import ended_attachments, judge_attachments
from dmabuf_tool.rules.wording import exporter, importer, many

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="pin-leak",
    group="C",
    severity=Severity.WARNING,
    title="a pin was not taken back",
    holds="An attachment was detached with more pins than unpins; or it is still pinned grace_ms "
    "after the process that attached it exited and no other process used it.",
    why="The exporter cannot move the buffer any more: device memory stays full, or the buffer "
    "stays in system memory.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_pin() and dma_buf_unpin(): the importer counts.",
    advice="Look for the missing dma_buf_unpin() in the importer.",
    example="detached with 1 pin left; exporter amdgpu, importer rdma",
    reads=("detaches",),
    on_loss=OnLoss.WITHHOLD,
    thresholds=(Threshold("grace_ms", 250, "ms", "time a driver has to clean up after an exit"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attachments that ended in a batch."""
    rows = ended_attachments(step)
    pinned = (rows["pins"] > 0) & ~rows["preexisting"]
    judge_attachments(RULE, rows, found, pinned, rows["pins"], _tell_detach)


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments there are now."""
    rows = model.registry.attachment_counts.live()
    rows = rows.compress((rows["pins"] > 0) & ~rows["preexisting"] & ~rows["shared"])
    grace_ns = found.threshold(RULE, "grace_ms") * 1_000_000
    for row in rows:
        attachment = model.registry.attachments[int(row["id"])]
        gone = model.processes.exit_after(attachment.tgid, attachment.ts_ns)
        if gone is None or int(row["last_ns"]) > gone or gone + grace_ns > model.last_ns:
            continue
        found.case(
            RULE,
            (attachment.site.id, "exit"),
            partial(_tell_exit, model, found, attachment, gone),
            when=(attachment.ts_ns, gone),
            score=float(row["pins"]),
            buffers=(attachment.buffer.id,) if attachment.buffer else (),
        )


def _tell_detach(attachment: Attachment, row: np.void, found: Findings) -> Told:
    site, pins = attachment.site, int(row["pins"])
    return Told(
        f"detached with {many(pins, 'pin')} left; exporter {exporter(site)}, "
        f"importer {importer(site)}",
        {"pins": pins},
    )


def _tell_exit(
    model: Model, found: Findings, attachment: Attachment, gone: int
) -> tuple[Told, Subject]:
    site = attachment.site
    comm = model.processes.comm(attachment.tgid) or "process"
    told = Told(
        f"pinned by {importer(site)} after {comm} (pid {attachment.tgid}) exited; "
        f"exporter {exporter(site)}",
        {"since_exit_ns": model.last_ns - gone},
    )
    return told, found.subject_of(attachment)
