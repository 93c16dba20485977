# SPDX-License-Identifier: GPL-2.0-or-later
"""held-by-dead-process: a buffer nobody holds any more is still there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.summaries import living
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Buffer
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="held-by-dead-process",
    group="C",
    severity=Severity.WARNING,
    title="a buffer is held for a process that is dead",
    holds="hold_ms after the process that exported a buffer exited, and with nothing done to it "
    "for as long, the buffer is still there; no process holds it by a descriptor or a mapping, and "
    "every process that attached it has exited too. Needs a look at all of /proc.",
    why="Its memory is lost until the driver that holds it is unloaded, or for good.",
    source="fs/file_table.c, __fput() ends a dma-buf (drivers/dma-buf/dma-buf.c, "
    "dma_buf_release()) when the last reference goes: a driver still has one.",
    advice="Look for the missing dma_buf_put() or dma_buf_detach() in the drivers of the attached "
    "devices.",
    example="10.0 MiB of system kept 4.1 s after cam (pid 312) exited: no process holds it, "
    "1 attachment does",
    on_loss=OnLoss.WITHHOLD,
    thresholds=(Threshold("hold_ms", 2000, "ms", "time after exit and last use"),),
)


def check_state(model: Model, found: Findings) -> None:
    """Look at the buffers there are now."""
    if model.holders.latest is None:
        return
    hold_ns = found.threshold(RULE, "hold_ms") * 1_000_000
    for buffer in living(model):
        gone = model.processes.exit_after(buffer.tgid, buffer.exported_ns) if buffer.tgid else None
        if gone is None or gone + hold_ns > model.holders.latest.ts_ns:
            continue
        counts = model.registry.counts_of(buffer.id)
        idle = counts is not None and int(counts["last_ns"]) + hold_ns <= model.last_ns
        if not idle or model.holders.of(buffer.ino) != () or not _all_gone(model, buffer):
            continue
        found.case(
            RULE,
            (buffer.exporter, buffer.tgid),
            partial(_tell, model, found, buffer, gone),
            when=(buffer.exported_ns, gone),
            score=float(buffer.size),
            buffers=(buffer.id,),
        )


def _all_gone(model: Model, buffer: Buffer) -> bool:
    return all(
        one.tgid and model.processes.exit_after(one.tgid, one.ts_ns) is not None
        for one in buffer.attached.values()
    )


def _tell(model: Model, found: Findings, buffer: Buffer, gone: int) -> tuple[Told, Subject]:
    comm = model.processes.comm(buffer.tgid) or "process"
    kept = (model.last_ns - gone) / 1e9
    many = len(buffer.attached)
    told = Told(
        f"{size(buffer.size)} of {buffer.exporter or 'unknown'} kept {kept:.1f} s after {comm} "
        f"(pid {buffer.tgid}) exited: no process holds it, {many} "
        f"attachment{' does' if many == 1 else 's do'}",
        {
            "size": buffer.size,
            "since_exit_ns": model.last_ns - gone,
            "attachments": many,
            "hold_ms": found.threshold(RULE, "hold_ms"),
        },
    )
    return told, found.subject_of_buffer(buffer)
