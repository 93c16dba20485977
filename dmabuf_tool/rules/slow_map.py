# SPDX-License-Identifier: GPL-2.0-or-later
"""slow-map: a map took long."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="slow-map",
    group="D",
    severity=Severity.INFO,
    title="a map took long",
    holds="dma_buf_map_attachment() took slow_ms and more.",
    why="The caller waits: for the exporter to allocate or move the buffer, for fences of other "
    "devices, or for the buffer's lock.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_map_attachment(): waits for kernel fences of "
    "static importers; the exporter's map op may allocate.",
    advice="Map before the buffer is needed; see which fence or allocation it waits for.",
    example="map of 8.3 MiB took 212.0 ms; exporter amdgpu, importer vb2-dma-sg",
    reads=("calls",),
    thresholds=(Threshold("slow_ms", 100, "ms", "time in map"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at all map calls of a batch."""
    limit = found.threshold(RULE, "slow_ms")
    slow = step.calls["duration_ns"] >= limit * 1_000_000
    if slow.any():
        rows = step.calls.compress(slow)
        found.rows(RULE, rows, score=rows["duration_ns"], tell=partial(_tell, limit))


def _tell(limit: int, row: np.void, site: Site) -> Told:
    took = int(row["duration_ns"])
    return Told(
        f"map of {size(int(row['size']))} took {took / 1e6:.1f} ms; exporter {exporter(site)}, "
        f"importer {importer(site)}",
        {
            "duration_ns": took,
            "size": int(row["size"]),
            "slow_ms": limit,
            "result": int(row["result"]),
        },
    )
