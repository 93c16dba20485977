# SPDX-License-Identifier: GPL-2.0-or-later
"""not-merged: entries that follow each other were not merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer, many, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="not-merged",
    group="D",
    severity=Severity.INFO,
    title="entries that follow each other were not merged",
    holds="Behind a translating domain, entries of one run follow each other without a gap, more "
    "of them than the run is long in segments of the default size, 64 KiB: the driver did not "
    "declare that its device takes longer ones.",
    why="The device is given many descriptors where one would do.",
    source="drivers/iommu/dma-iommu.c, __finalise_sg(): entries are joined up to "
    "dma_get_max_seg_size().",
    advice="The importer's driver should call dma_set_max_seg_size() with what its device takes.",
    example="128 entries in 1 run: segments are joined up to 64.0 KiB, the default; exporter "
    "system, importer edu_attach [edu]",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    sites = step.model.registry.sites.effective
    split = sites["translated"][maps["site"]] & (maps["entries"] > maps["runs"])
    if not split.any():
        return
    default = sites["segment_size_source"][maps["site"]] == Source.DEFAULT
    limit = sites["max_segment_size"][maps["site"]]
    rows = maps.compress(split & default & maps["complete"] & (maps["longest_run"] > limit))
    found.rows(RULE, rows, score=rows["entries"] - rows["runs"], tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    entries, runs = int(row["entries"]), int(row["runs"])
    limit = site.effective.max_segment_size
    return Told(
        f"{entries} entries in {many(runs, 'run')}: segments are joined up to "
        f"{size(limit)}, the default; exporter {exporter(site)}, importer {importer(site)}",
        {
            "entries": entries,
            "runs": runs,
            "longest_run": int(row["longest_run"]),
            "max_segment_size": limit,
        },
    )
