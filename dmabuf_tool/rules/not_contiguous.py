# SPDX-License-Identifier: GPL-2.0-or-later
"""not-contiguous: an importer that needs one DMA-contiguous run got several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.undone import inferred_one_run, refused_in, refused_now, short_runs
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="not-contiguous",
    group="A",
    severity=Severity.ERROR,
    title="the importer needs one contiguous run and got several",
    holds="The importer's framework takes one DMA-contiguous run (seen in the call stack of the "
    "attach, or by the driver), the run that the table begins with is shorter than the buffer, "
    "and the importer took the table back: the function that maps and checks it unmapped it (seen "
    "in the call stack of the attachment's first unmap). Where that is not known: the thread that "
    "mapped it ended it within 2 s, with no CPU access and no second-level mapping meanwhile, and "
    "the attachment never kept another. Where a user configured max_segment_count = 1: at the map.",
    why="The import fails: the importer compares the first run with the size it needs and "
    "returns -EFAULT (vb2-dma-contig) or -EINVAL (DRM DMA helpers). An importer that does not "
    "check uses memory that is not the buffer's.",
    source="drivers/media/common/videobuf2/videobuf2-dma-contig.c, vb2_dc_map_dmabuf(); "
    "drivers/gpu/drm/drm_gem_dma_helper.c, drm_gem_dma_prime_import_sg_table().",
    advice="Allocate from a contiguous (CMA) heap, switch the IOMMU on for this device, or let "
    "the display or codec export the buffer.",
    example="not contiguous: longest run 64.0 KiB of 8.3 MiB in 133 runs; importer "
    "vb2-dma-contig, exporter udmabuf",
    reads=("maps", "detaches"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch, and at what detached attachments refused."""
    if len(step.detaches):
        _refused(refused_in(step), step.model, found)
    if len(step.maps):
        sites = step.model.registry.sites.effective
        configured = sites["count_source"][step.maps["site"]] == Source.CONFIGURED
        rows = step.maps.compress(configured & short_runs(step))
        found.rows(RULE, rows, score=rows["size"] - rows["first_run"], tell=_tell)


def check_state(model: Model, found: Findings) -> None:
    """Look at what living attachments refused up to now."""
    _refused(refused_now(model), model, found)


def _refused(rows: Rows, model: Model, found: Findings) -> None:
    # An importer that keeps the table has found it good for what it needs of the buffer.
    rows = rows.compress(inferred_one_run(rows, model))
    found.rows(RULE, rows, score=rows["size"] - rows["first_run"], at="end_ns", tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    return Told(
        f"not contiguous: longest run {size(int(row['longest_run']))} of "
        f"{size(int(row['size']))} in {int(row['runs'])} runs; importer {importer(site)}, "
        f"exporter {exporter(site)}",
        {
            "longest_run": int(row["longest_run"]),
            "first_run": int(row["first_run"]),
            "runs": int(row["runs"]),
            "size_needed": int(row["size"]),
            "entries": int(row["entries"]),
            "source": str(site.effective.count_source),
            "importer": str(site.importer) if site.importer else None,
        },
    )
