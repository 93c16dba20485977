# SPDX-License-Identifier: GPL-2.0-or-later
"""detach-while-mapped: an attachment was detached while it was mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.mappings import End
from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer, size
from dmabuf_tool.schema import Flag

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="detach-while-mapped",
    group="C",
    severity=Severity.ERROR,
    title="an attachment was detached while it was mapped",
    holds="dma_buf_detach() ran while a mapping of the attachment had users, and no table cached "
    "by the exporter was there for it to end.",
    why="Nobody can unmap it any more: pages and I/O virtual addresses are lost, and the device "
    "keeps access to memory that is given to others.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_detach(): the importer must have unmapped; up to "
    "6.14 a cached table is unmapped there.",
    advice="The importer must call dma_buf_unmap_attachment() before dma_buf_detach(), also where "
    "it fails.",
    example="detached with 1.0 MiB mapped; exporter system, importer edu_attach [edu]",
    reads=("ended",),
    on_loss=OnLoss.WITHHOLD,
)


def check(step: Step, found: Findings) -> None:
    """Look at the mappings a detach ended."""
    ended = step.ended
    bad = (ended["end"] == End.DETACH) & (ended["users"] > 0)
    bad &= (ended["flags"] & Flag.PREEXISTING) == 0
    if bad.any():
        # Two maps may give one table (vb2_dc_dmabuf_ops_map()); the second unmap is then of a
        # table the probes know no more, and the first mapping seems to stay.
        counts = step.model.registry.attachment_counts
        bad &= counts.values("unknown_unmaps", ended["attachment"], 0) == 0
        rows = ended.compress(bad)
        found.rows(RULE, rows, score=rows["size"], at="end_ns", tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    return Told(
        f"detached with {size(int(row['size']))} mapped; exporter {exporter(site)}, "
        f"importer {importer(site)}",
        {
            "size": int(row["size"]),
            "users": int(row["users"]),
            "address": int(row["address"]),
            "mapped_for_ns": int(row["end_ns"]) - int(row["ts_ns"]),
        },
    )
