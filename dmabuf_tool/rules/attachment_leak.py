# SPDX-License-Identifier: GPL-2.0-or-later
"""attachment-leak: attachments nobody will use or detach any more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="attachment-leak",
    group="C",
    severity=Severity.WARNING,
    title="attachments that are not detached",
    holds="An attachment made during the trace is still there grace_ms after the process that "
    "made it has exited, and no other process ever used it; or a living process holds idle "
    "(unmapped) attachments of one buffer to one device, idle_count and more.",
    why="An attachment holds its buffer: memory (often CMA) that no process owns is never given "
    "back.",
    source="drivers/dma-buf/dma-buf.c: dma_buf_attach() has no owner, only dma_buf_detach() ends "
    "it; drivers do that when the file they were opened by is closed.",
    advice="Look for the missing dma_buf_detach() in the importer below; the stack of the attach "
    "names the place. Closing its device file or unloading the driver may free the memory.",
    example="12 attachments left by edu_attach [edu] after app (pid 312) exited, 10.0 MiB held; "
    "exporter system",
    on_loss=OnLoss.WITHHOLD,
    thresholds=(
        Threshold("grace_ms", 250, "ms", "time a driver has to clean up after an exit"),
        Threshold(
            "idle_count", 256, "attachments",
            "idle attachments of one buffer, device and process; V4L2 queues legally keep one "
            "for each of up to 128 slots",
        ),
    ),
)  # fmt: skip


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments that are there now."""
    counts = model.registry.attachment_counts
    if not len(counts):
        return
    rows = counts.live()
    rows = rows.compress(~rows["preexisting"])
    _after_exit(model, found, rows.compress(~rows["shared"]))
    _idle(model, found, rows)


def _after_exit(model: Model, found: Findings, rows: Rows) -> None:
    grace_ns = found.threshold(RULE, "grace_ms") * 1_000_000
    for number, last_ns in zip(rows["id"].tolist(), rows["last_ns"].tolist(), strict=True):
        attachment = model.registry.attachments[number]
        exited = model.processes.exit_after(attachment.tgid, attachment.ts_ns)
        if exited is None or last_ns > exited or exited + grace_ns > model.last_ns:
            continue
        found.case(
            RULE,
            (attachment.site.id, "exit"),
            partial(_tell_exit, model, found, attachment, exited),
            when=(attachment.ts_ns, exited),
            score=float(attachment.buffer.size) if attachment.buffer else 0.0,
            buffers=(attachment.buffer.id,) if attachment.buffer else (),
        )


def _tell_exit(
    model: Model, found: Findings, attachment: Attachment, exited: int
) -> tuple[Told, Subject]:
    site = attachment.site
    held = attachment.buffer.size if attachment.buffer else 0
    comm = model.processes.comm(attachment.tgid) or "process"
    return Told(
        f"attachment left by {importer(site)} after {comm} (pid {attachment.tgid}) exited: "
        f"{size(held)} held; exporter {exporter(site)}",
        {
            "attached_for_ns": model.last_ns - attachment.ts_ns,
            "since_exit_ns": model.last_ns - exited,
            "size": held,
            "grace_ms": found.threshold(RULE, "grace_ms"),
            "stack": " < ".join(attachment.stack),
        },
    ), found.subject_of(attachment)


def _idle(model: Model, found: Findings, rows: Rows) -> None:
    limit = found.threshold(RULE, "idle_count")
    if len(rows) < limit:
        return
    idle = rows.compress(~np.isin(rows["id"], model.mappings.live.live()["attachment"]))
    idle = idle.compress((idle["pins"] <= 0) & (idle["buffer"] != 0))
    key = (idle["buffer"].astype(np.uint64) << np.uint64(32)) | idle["site"]
    keys, first, number = np.unique(key, return_index=True, return_counts=True)
    for place in np.flatnonzero(number >= limit).tolist():
        attachment = model.registry.attachments[int(idle["id"][first[place]])]
        many = int(number[place])
        found.case(
            RULE,
            (int(keys[place]), "idle"),
            partial(_tell_idle, found, attachment, many),
            when=(attachment.ts_ns, model.last_ns),
            score=float(many),
            buffers=(int(idle["buffer"][first[place]]),),
        )


def _tell_idle(found: Findings, attachment: Attachment, many: int) -> tuple[Told, Subject]:
    site = attachment.site
    return Told(
        f"{many} idle attachments of one buffer to one device by {importer(site)}, none "
        f"detached; exporter {exporter(site)}",
        {
            "idle_attachments": many,
            "idle_count": found.threshold(RULE, "idle_count"),
            "stack": " < ".join(attachment.stack),
        },
    ), found.subject_of(attachment)
