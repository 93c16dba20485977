# SPDX-License-Identifier: GPL-2.0-or-later
"""pages-expected: a table without pages reached an importer that uses pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="pages-expected",
    group="A",
    severity=Severity.ERROR,
    title="a table without pages reached an importer that uses pages",
    holds="No entry of the table has a page (orig_nents is 0, or all pages are NULL), and the "
    "importer's framework reads pages from tables, or a user configured that it does (pages = "
    "true).",
    why="The importer maps nothing, or follows a null pointer. Device memory has no pages, and "
    "debug kernels (DMABUF_DEBUG) hide them on purpose.",
    source="drivers/dma-buf/dma-buf.c (mangle_sg_table() up to 6.18, a copy without pages after); "
    "dma_buf_phys_vec_to_sgt() (6.19): orig_nents is 0. Importers by framework: msm, tegra, "
    "rockchip use sg_phys() of orig_nents entries.",
    advice="The importer must use DMA addresses (sg_dma_address() of nents entries) only.",
    example="table of 4 entries without pages; exporter vfio, importer msm, which uses pages",
    reads=("maps",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the new mappings of a batch."""
    maps = step.maps
    pages = step.model.registry.sites.effective["pages"]
    if not pages.any():
        return
    none = (maps["orig_nents"] == 0) | (maps["pageless"] == maps["entries"])
    rows = maps.compress(pages[maps["site"]] & none)
    found.rows(RULE, rows, score=rows["total"], tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    return Told(
        f"table of {int(row['entries'])} entries without pages; exporter {exporter(site)}, "
        f"importer {importer(site)}, which uses pages",
        {
            "entries": int(row["entries"]),
            "orig_nents": int(row["orig_nents"]),
            "pageless": int(row["pageless"]),
            "size": int(row["size"]),
            "source": str(site.effective.pages_source),
            "proof": site.framework.proof or None,
        },
    )
