# SPDX-License-Identifier: GPL-2.0-or-later
"""size-mismatch: a table is not as long as its buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="size-mismatch",
    group="A",
    severity=Severity.ERROR,
    title="a table is not as long as its buffer",
    holds="The sum of the DMA lengths of all nents entries is not the buffer's size. Error if it "
    "is less, info if it is more.",
    why="Importers believe the buffer's size: what is behind the end of the table is not the "
    "buffer's, and the device reads or writes it.",
    source="include/linux/dma-buf.h, struct dma_buf_ops.map_dma_buf: the table describes the "
    "whole buffer.",
    advice="The exporter's map_dma_buf is at fault: it must describe all of the buffer.",
    example="table of 60.0 KiB for a buffer of 64.0 KiB; exporter lab, importer edu_attach [edu]",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    other = maps["complete"] & (maps["total"] != maps["size"])
    if not other.any():
        return
    rows = maps.compress(other)
    short = rows["total"] < rows["size"]
    for some, severity in ((short, Severity.ERROR), (~short, Severity.INFO)):
        chosen = rows.compress(some)
        wrong = chosen["size"].astype("f8") - chosen["total"].astype("f8")
        found.rows(RULE, chosen, score=abs(wrong), severity=severity, tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    total, wanted = int(row["total"]), int(row["size"])
    return Told(
        f"table of {size(total)} for a buffer of {size(wanted)}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "total": total,
            "size": wanted,
            "missing": wanted - total,
            "entries": int(row["entries"]),
            "empty_entries": int(row["empty_entries"]),
        },
    )
