# SPDX-License-Identifier: GPL-2.0-or-later
"""too-many-segments: a table has more runs than the device takes segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.undone import one_run, refused_in, refused_now
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="too-many-segments",
    group="A",
    severity=Severity.ERROR,
    title="a table has more runs than the device takes segments",
    holds="The number of DMA-contiguous runs is above the device's max_segment_count (inferred or "
    "configured; one segment is the business of not-contiguous). Warning at the map; error if "
    "the importer took the table back: the thread that mapped it ended it within 2 s, with no CPU "
    "access and no second-level mapping meanwhile, and the attachment never kept another.",
    why="A device with a fixed list of segments cannot describe the buffer: the import fails, or "
    "the driver uses a part of it.",
    source="No kernel has such a field (the series of 2015 that added max_segment_count never "
    "landed); importers count for themselves.",
    advice="Allocate from a contiguous (CMA) heap, switch the IOMMU on for this device, or let it "
    "export the buffer.",
    example="table of 64 runs, 16 segments at most (configured); exporter system, importer "
    "edu_attach [edu]",
    reads=("maps", "detaches"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch, and at what detached attachments refused."""
    counts = step.model.registry.sites.effective["max_segment_count"]
    if not bool((counts > 1).any()):
        return
    if len(step.maps):
        most = counts[step.maps["site"]]
        rows = step.maps.compress((most > 1) & (step.maps["runs"] > most))
        found.rows(RULE, rows, score=rows["runs"], severity=Severity.WARNING, tell=_tell)
    if len(step.detaches):
        _refused(refused_in(step), step.model, found)


def check_state(model: Model, found: Findings) -> None:
    """Look at what living attachments refused up to now."""
    _refused(refused_now(model), model, found)


def _refused(rows: Rows, model: Model, found: Findings) -> None:
    rows = rows.compress(~one_run(rows, model))
    found.rows(RULE, rows, score=rows["runs"], at="end_ns", counted=False, tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    most, source = site.effective.max_segment_count, site.effective.count_source
    undone_too = bool(row["end_ns"])
    return Told(
        f"table of {int(row['runs'])} runs, {most} segments at most ({source})"
        f"{', taken back unused' if undone_too else ''}; "
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
