# SPDX-License-Identifier: GPL-2.0-or-later
"""pin-refused: dma_buf_pin() returned an errno."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.refusals import PIN_REASONS, TRANSIENT, negative
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="pin-refused",
    group="A",
    severity=Severity.ERROR,
    title="a pin was refused",
    holds="dma_buf_pin() returned an errno; info if a signal interrupted it.",
    why="An importer that cannot follow moves must pin; without the pin it cannot use the "
    "buffer (RDMA registration, scan-out).",
    source="drivers/dma-buf/dma-buf.c, dma_buf_pin(): the exporter's pin op decides "
    "(amdgpu_dma_buf_pin(), xe_dma_buf_pin()).",
    advice="Free memory where the importer reaches the buffer, or use an importer that allows "
    "peer to peer.",
    example="pin refused with -EINVAL: the buffer cannot be pinned where this importer reaches "
    "it; exporter amdgpu, importer rdma, 16.0 MiB",
    reads=("pins",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the pins of a batch; failed ones are few."""
    for event in step.pins[step.pins["result"] < 0]:
        subject = found.subject_at(event)
        result, when = int(event["result"]), int(event["ts_ns"])
        found.case(
            RULE,
            (subject.site.id, int(event["device"]), result),
            partial(_tell, subject, result, int(event["size"])),
            when=(when, when),
            severity=Severity.INFO if -result in TRANSIENT else None,
            buffers=(int(event["buffer"]),),
        )


def _tell(subject: Subject, result: int, wanted: int) -> tuple[Told, Subject]:
    reason = PIN_REASONS.get(-result, "the exporter refused")
    if -result in TRANSIENT:
        reason = "interrupted, the caller repeats it"
    told = Told(
        f"pin refused with {negative(result)}: {reason}; exporter {exporter(subject.site)}, "
        f"importer {importer(subject.site)}, {size(wanted)}",
        {"errno": negative(result), "step": "pin", "reason": reason, "size": wanted},
    )
    return told, subject
