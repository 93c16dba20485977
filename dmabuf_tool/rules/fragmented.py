# SPDX-License-Identifier: GPL-2.0-or-later
"""fragmented: a buffer is in many small pieces."""

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
    id="fragmented",
    group="D",
    severity=Severity.INFO,
    title="a table has many small entries",
    holds="A table has min_entries entries and more, of less than 64 KiB each on average.",
    why="Maps, IOMMU tables and descriptors of the device grow with the entries; small pages cost "
    "translations.",
    source="drivers/dma-buf/heaps/system_heap.c allocates orders 8, 4 and 0 as it finds them; "
    "shmem and udmabuf take single pages.",
    advice="Allocate early, while memory is not fragmented; use huge pages (udmabuf on hugetlbfs, "
    "huge shmem) or a CMA heap.",
    example="2048 entries of 4.0 KiB on average, 2019 runs; exporter udmabuf, importer "
    "edu_attach [edu]",
    reads=("maps",),
    thresholds=(Threshold("min_entries", 16, "entries", "entries of a table that is told"),),
)

PIECE = 64 << 10


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps, least = step.maps, found.threshold(RULE, "min_entries")
    many = maps["entries"] >= least
    if many.any():
        rows = maps.compress(many & (maps["total"] < maps["entries"] * PIECE))
        found.rows(RULE, rows, score=rows["entries"], tell=partial(_tell, least))


def _tell(least: int, row: np.void, site: Site) -> Told:
    entries, total, runs = int(row["entries"]), int(row["total"]), int(row["runs"])
    return Told(
        f"{entries} entries of {size(total // entries)} on average, {runs} runs; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "entries": entries,
            "mean_entry": total // entries,
            "longest_entry": int(row["longest_entry"]),
            "runs": runs,
            "min_entries": least,
        },
        "The memory is not in pieces, the exporter lists its pages one by one: "
        "sg_alloc_table_from_pages() merges them."
        if total >= runs * PIECE
        else "",
    )
