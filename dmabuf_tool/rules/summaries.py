# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings on what was counted for an attachment or a buffer over its whole life.

They are judged at its end, and while it lives whenever the state is asked for: so each counts
once, whatever the batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dmabuf_tool.rules.base import Rule, Severity, Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment, Buffer
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings, Subject

Tell = Callable[["Attachment", np.void, "Findings"], Told]


def ended_attachments(step: Step) -> Rows:
    """ATTACHMENT_COUNTS rows of attachments that ended in a batch."""
    counts = step.model.registry.attachment_counts
    ids = np.array([one.id for one in step.detaches], np.uint32)
    position = counts.find(ids)
    return counts.rows.take(position[position >= 0])


def judge_attachments(
    rule: Rule,
    rows: Rows,
    found: Findings,
    cases: NDArray[np.bool_],
    score: NDArray[Any],
    tell: Tell,
) -> None:
    """Hand in the attachments that are cases, by site."""
    registry = found.model.registry
    for place in np.flatnonzero(cases).tolist():
        row = rows[place]
        attachment = registry.attachments.get(int(row["id"]))
        if attachment is not None:
            found.case(
                rule,
                (attachment.site.id,),
                partial(_tell_attachment, tell, attachment, row.copy(), found),
                when=(attachment.ts_ns, attachment.detached_ns or int(row["last_ns"])),
                score=float(score[place]),
                buffers=(attachment.buffer.id,) if attachment.buffer else (),
            )


def _tell_attachment(
    tell: Tell, attachment: Attachment, row: np.void, found: Findings
) -> tuple[Told, Subject]:
    return tell(attachment, row, found), found.subject_of(attachment)


def judge_buffers(
    rule: Rule,
    buffers: list[Buffer],
    found: Findings,
    told: Callable[[Buffer, np.void], tuple[float, Told] | None],
    severity: Severity | None = None,
) -> None:
    """Hand in the buffers of which `told` says something, with a score; by exporter."""
    for buffer in buffers:
        counts = found.model.registry.counts_of(buffer.id)
        said = told(buffer, counts) if counts is not None else None
        if said is not None:
            score, text = said
            found.case(
                rule,
                (buffer.exporter, buffer.tgid),
                partial(_tell_buffer, text, buffer, found),
                when=(buffer.exported_ns or found.model.first_ns, _end(buffer, found.model)),
                score=score,
                severity=severity,
                buffers=(buffer.id,),
            )


def _tell_buffer(text: Told, buffer: Buffer, found: Findings) -> tuple[Told, Subject]:
    return text, found.subject_of_buffer(buffer)


def _end(buffer: Buffer, model: Model) -> int:
    return buffer.released_ns or model.last_ns


def living(model: Model) -> list[Buffer]:
    """Buffers that were not released."""
    return [buffer for buffer in model.registry.buffers.values() if not buffer.released_ns]
