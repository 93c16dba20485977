# SPDX-License-Identifier: GPL-2.0-or-later
"""direction-conflict: one attachment mapped in two directions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer
from dmabuf_tool.schema import DIRECTIONS, Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="direction-conflict",
    group="A",
    severity=Severity.WARNING,
    title="one attachment was mapped in two directions",
    holds="A map of an attachment names another direction than its first one did. A cached table "
    "that is bidirectional serves all directions.",
    why="Caches are written back for the wrong direction, and exporters that keep the table (up "
    "to 6.14) refuse the second map with -EBUSY.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_map_attachment(): 'Two mappings with different "
    "directions for the same attachment are not allowed' (up to 6.14).",
    advice="Map bidirectional, or attach once for each direction.",
    example="mapped from-device, first it was to-device; exporter vgem, importer vb2-dma-sg",
    reads=("calls",),
)


def check(step: Step, found: Findings) -> None:
    """Look at all map calls of a batch."""
    calls = step.calls
    counts = step.model.registry.attachment_counts
    first = counts.values("direction", calls["attachment"], 255)
    other = (first != calls["direction"]) & (first != 255)
    other &= counts.values("first_map", calls["attachment"], 0) <= calls["seq"]
    other &= (first != 0) | ((calls["flags"] & Flag.CACHED) == 0)
    if other.any():
        rows = calls.compress(other)
        found.rows(RULE, rows, score=np.zeros(len(rows)), tell=partial(_tell, step.model))


def _tell(model: Model, row: np.void, site: Site) -> Told:
    counts = model.registry.attachment_counts
    first_one = int(counts.rows["direction"][counts.position(int(row["attachment"]))])
    now, first = (DIRECTIONS[min(number, 3)] for number in (int(row["direction"]), first_one))
    return Told(
        f"mapped {now}, first it was {first}; exporter {exporter(site)}, importer {importer(site)}",
        {"direction": now, "first_direction": first, "result": int(row["result"])},
    )
