# SPDX-License-Identifier: GPL-2.0-or-later
"""map-refused: a map returned an errno, or the importer took back a table it cannot use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.refusals import TRANSIENT, Refusal, map_reason, negative
from dmabuf_tool.rules.undone import one_run, proof, refused_in, refused_now
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="map-refused",
    group="A",
    severity=Severity.ERROR,
    title="a map was refused",
    holds="dma_buf_map_attachment() returned an errno, or the importer took back a table that is "
    "not the one run it needs (as not-contiguous says); info if a signal interrupted it.",
    why="The import seemed to work, and the first use fails: a frame is lost, or the "
    "application gives up with an errno that hides the cause.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_map_attachment(); the errno of the DMA API is "
    "taken inside, from __dma_map_sg_attrs() (kernel/dma/mapping.c), as exporters replace it.",
    advice="The title says which step refused and why; follow its reason.",
    example="map refused with -EBUSY by the DMA API (-ENOMEM): the device does not reach the "
    "pages and the bounce buffer cannot take them (256 KiB an entry at most); exporter amdgpu, "
    "importer drm_gem_prime_import_dev [drm]",
    reads=("failed", "detaches"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the failed maps of a batch, and at what detached attachments refused."""
    failed = step.failed
    if len(failed):
        transient = np.isin(-failed["result"], list(TRANSIENT))
        for some, severity in ((~transient, None), (transient, Severity.INFO)):
            rows = failed.compress(some)
            found.rows(
                RULE,
                rows,
                score=rows["size"],
                split=rows["result"],
                severity=severity,
                tell=_tell_failed,
            )
    if len(step.detaches):
        _refused(refused_in(step), step.model, found)


def check_state(model: Model, found: Findings) -> None:
    """Look at what living attachments refused up to now."""
    _refused(refused_now(model), model, found)


def _refused(rows: Rows, model: Model, found: Findings) -> None:
    rows = rows.compress(one_run(rows, model))
    found.rows(RULE, rows, score=rows["size"] - rows["first_run"], at="end_ns", tell=_tell_undone)


def _tell_failed(row: np.void, site: Site) -> Told:
    result, dma_errno = int(row["result"]), int(row["dma_errno"])
    refusal = Refusal(result, dma_errno, int(row["bounced_bytes"]), site.limits.translated)
    reason = map_reason(refusal)
    text, advice = reason.text, reason.advice
    if -result in TRANSIENT:
        text, advice = "interrupted, the caller repeats it", "Nothing, while it is rare."
    step = "DMA API" if dma_errno else "exporter"
    inner = f" ({negative(dma_errno)})" if dma_errno and dma_errno != result else ""
    return Told(
        f"map refused with {negative(result)} by the {step}{inner}: {text}; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {
            "errno": negative(result),
            "dma_errno": negative(dma_errno) if dma_errno else None,
            "step": step,
            "reason": text,
            "size": int(row["size"]),
            "bounces": int(row["bounces"]),
            "bounced_bytes": int(row["bounced_bytes"]),
        },
        advice,
    )


def _tell_undone(row: np.void, site: Site) -> Told:
    longest, wanted = int(row["longest_run"]), int(row["size"])
    return Told(
        f"map refused by the importer {importer(site)}: it needs one run of {size(wanted)} and "
        f"got {int(row['runs'])}, the longest of {size(longest)}; exporter {exporter(site)}",
        {
            "errno": None,
            "step": "importer",
            "reason": "the table is not one DMA-contiguous run",
            "size": wanted,
            "longest_run": longest,
            "first_run": int(row["first_run"]),
            "runs": int(row["runs"]),
            "undone_after_ns": int(row["end_ns"]) - int(row["ts_ns"]),
            "proof": proof(row),
        },
        "Allocate from a contiguous (CMA) heap, switch the IOMMU on for this device, or let it "
        "export the buffer.",
    )
