# SPDX-License-Identifier: GPL-2.0-or-later
"""bounced: a dma-buf goes through swiotlb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dmabuf_tool.model.model import SKIP_CPU_SYNC
from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer, size
from dmabuf_tool.schema import SG_DMA_SWIOTLB, Flag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="bounced",
    group="A",
    severity=Severity.ERROR,
    title="a dma-buf goes through the bounce buffer",
    holds="A map copied to swiotlb because the device does not reach the pages. Error if it was "
    "mapped with DMA_ATTR_SKIP_CPU_SYNC, or stayed mapped for stale_ms and more with no CPU "
    "access (begin/end) on the buffer: nothing copies the data. Else warning.",
    why="The device works on a copy. Without a sync it shows a stale or green picture and no "
    "error; with one, every frame is copied by the CPU.",
    source="kernel/dma/swiotlb.c, swiotlb_map() and its tracepoint swiotlb_bounced; "
    "drivers/iommu/dma-iommu.c marks entries with SG_DMA_SWIOTLB.",
    advice="Raise the device's DMA mask or bus limit if the hardware can, allocate in its reach "
    "(DMA32 or CMA heap), or switch the IOMMU on.",
    example="bounced: 536.6 KiB through swiotlb, mask 0x3fffffff, mapped with SKIP_CPU_SYNC; "
    "exporter v3d, importer drm-gem-dma",
    reads=("calls", "ended"),
    thresholds=(
        Threshold("stale_ms", 1000, "ms", "time mapped without a sync that makes it an error"),
    ),
)


def check(step: Step, found: Findings) -> None:
    """Look at the maps and the ended mappings of a batch."""
    calls = step.calls
    if len(calls):
        fresh = (calls["result"] == 0) & ((calls["flags"] & Flag.CACHED) == 0)
        rows = calls.compress(fresh & _is_bounced(calls))
        if len(rows):
            skipped = (rows["dma_attrs"] & SKIP_CPU_SYNC) != 0
            for some, severity in ((skipped, Severity.ERROR), (~skipped, Severity.WARNING)):
                _hand_in(found, rows.compress(some), severity)
    if len(step.ended):
        ended = step.ended.compress(_is_bounced(step.ended))
        if len(ended):
            stale = _is_stale(found, ended, ended["end_ns"] - ended["ts_ns"])
            _hand_in(found, ended.compress(stale), Severity.ERROR, at="end_ns", counted=False)


def check_state(model: Model, found: Findings) -> None:
    """Look at what is mapped now."""
    rows = model.live_mappings()
    rows = rows.compress(_is_bounced(rows))
    rows["end_ns"] = model.last_ns
    stale = rows.compress(_is_stale(found, rows, rows["end_ns"] - rows["ts_ns"]))
    _hand_in(found, stale, Severity.ERROR, counted=False)


def _is_bounced(rows: NDArray[Any]) -> NDArray[np.bool_]:
    marked = (rows["dma_flags"] & SG_DMA_SWIOTLB) != 0
    bounced: NDArray[np.bool_] = (rows["bounces"] != 0) | marked
    return bounced


def _is_stale(found: Findings, rows: NDArray[Any], age: NDArray[Any]) -> NDArray[np.bool_]:
    long = age >= found.threshold(RULE, "stale_ms") * 1_000_000
    fresh = (rows["flags"] & Flag.PREEXISTING) == 0
    stale: NDArray[np.bool_] = long & fresh & ~rows["synced"]
    return stale


def _hand_in(
    found: Findings,
    rows: NDArray[Any],
    severity: Severity,
    *,
    at: str = "ts_ns",
    counted: bool = True,
) -> None:
    found.rows(
        RULE,
        rows,
        score=rows["bounced_bytes"],
        severity=severity,
        tell=_tell,
        at=at,
        counted=counted,
    )


def _tell(row: np.void, site: Site) -> Told:
    skipped = bool(int(row["dma_attrs"]) & SKIP_CPU_SYNC)
    stale = int(row["end_ns"]) and not skipped
    moved = int(row["bounced_bytes"]) or int(row["total"])
    limits = site.limits
    reach = f"mask {limits.dma_mask:#x}"
    if limits.bus_dma_limit:
        reach += f", bus limit {limits.bus_dma_limit:#x}"
    how = ""
    if skipped:
        how = ", mapped with SKIP_CPU_SYNC"
    elif stale:
        age = (int(row["end_ns"]) - int(row["ts_ns"])) / 1e9
        how = f", never synced in the {age:.1f} s it was mapped"
    return Told(
        f"bounced: {size(moved)} through swiotlb, {reach}{how}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "bounces": int(row["bounces"]),
            "bounced_bytes": moved,
            "dma_mask": limits.dma_mask,
            "bus_dma_limit": limits.bus_dma_limit,
            "skip_cpu_sync": skipped,
            "synced": bool(row["synced"]),
        },
    )
