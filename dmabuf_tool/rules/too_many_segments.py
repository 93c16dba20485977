# SPDX-License-Identifier: GPL-2.0-or-later
"""too-many-segments: a table has more runs than the device takes segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.undone import undone
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="too-many-segments",
    group="A",
    severity=Severity.ERROR,
    title="a table has more runs than the device takes segments",
    holds="The number of DMA-contiguous runs is above the device's max_segment_count (inferred or "
    "configured; one segment is the business of not-contiguous). Warning at the map; error if the "
    "importer ended the mapping at once.",
    why="A device with a fixed list of segments cannot describe the buffer: the import fails, or "
    "the driver uses a part of it.",
    source="No kernel has such a field (the series of 2015 that added max_segment_count never "
    "landed); importers count for themselves.",
    advice="Allocate from a contiguous (CMA) heap, switch the IOMMU on for this device, or let it "
    "export the buffer.",
    example="table of 64 runs, 16 segments at most (configured); exporter system, importer "
    "edu_attach [edu]",
    reads=("maps", "ended"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new and the ended mappings of a batch."""
    counts = step.model.registry.sites.effective["max_segment_count"]
    if not bool((counts > 1).any()):
        return
    for part, at in (("maps", "ts_ns"), ("ended", "end_ns")):
        rows = getattr(step, part)
        most = counts[rows["site"]]
        many = (most > 1) & (rows["runs"] > most)
        if part == "ended":
            many &= undone(step)
        rows = rows.compress(many)
        found.rows(
            RULE,
            rows,
            score=rows["runs"],
            severity=Severity.ERROR if part == "ended" else Severity.WARNING,
            at=at,
            counted=part == "maps",
            tell=_tell,
        )


def _tell(row: np.void, site: Site) -> Told:
    most, source = site.effective.max_segment_count, site.effective.count_source
    undone_too = bool(row["end_ns"])
    return Told(
        f"table of {int(row['runs'])} runs, {most} segments at most ({source})"
        f"{', taken back at once' if undone_too else ''}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "runs": int(row["runs"]),
            "max_segment_count": most,
            "source": str(source),
            "entries": int(row["entries"]),
            "longest_run": int(row["longest_run"]),
            "size": int(row["size"]),
            "undone": undone_too,
        },
    )
