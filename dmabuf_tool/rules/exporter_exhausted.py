# SPDX-License-Identifier: GPL-2.0-or-later
"""exporter-exhausted: an exporter has no memory left."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.summaries import living
from dmabuf_tool.rules.wording import many, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="exporter-exhausted",
    group="C",
    severity=Severity.WARNING,
    title="an exporter has no memory left",
    holds="A map failed with -ENOMEM before the DMA API was called: the exporter could not give "
    "the buffer its memory. The processes that hold most of this exporter's buffers are named.",
    why="Every further allocation of this exporter fails, in whichever process comes next.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_map_attachment(); NULL from an exporter becomes "
    "-ENOMEM.",
    advice="Close buffers in the processes named, or give the exporter more memory (cma=, VRAM).",
    example="vivid has no memory for 8.3 MiB; 48.0 MiB in 6 buffers are held: cam/312 40.0 MiB, "
    "app/400 8.0 MiB",
    reads=("failed",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the failed maps of a batch."""
    failed = step.failed
    short = (failed["result"] == -errno.ENOMEM) & (failed["dma_errno"] == 0)
    rows = failed.compress(short)
    if len(rows):
        found.rows(RULE, rows, score=rows["size"], tell=partial(_tell, step.model))


def _tell(model: Model, row: np.void, site: Site) -> Told:
    held: dict[int, int] = {}
    buffers = [buffer for buffer in living(model) if buffer.exporter == site.exporter]
    for buffer in buffers:
        held[buffer.tgid] = held.get(buffer.tgid, 0) + buffer.size
    top = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:3]
    names = ", ".join(
        f"{model.processes.comm(tgid) or '?'}/{tgid} {size(amount)}" for tgid, amount in top
    )
    total = sum(held.values())
    return Told(
        f"{site.exporter or 'exporter'} has no memory for {size(int(row['size']))}; "
        f"{size(total)} held in {many(len(buffers), 'buffer')}: {names}",
        {
            "size": int(row["size"]),
            "held_bytes": total,
            "held_buffers": len(buffers),
            "top": names,
        },
    )
