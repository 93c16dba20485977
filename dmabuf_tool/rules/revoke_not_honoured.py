# SPDX-License-Identifier: GPL-2.0-or-later
"""revoke-not-honoured: a mapping lives long after its buffer was invalidated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.two_levels import MS, facts, hand_in, number
from dmabuf_tool.schema import Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="revoke-not-honoured",
    group="B",
    severity=Severity.ERROR,
    title="a mapping lives long after its buffer was invalidated",
    holds="A dynamic importer still has, or ended late, a mapping made before the buffer was "
    "invalidated: warning from grace_ms on, error from limit_ms on.",
    why="The exporter wants to move or revoke the buffer and cannot, or does and the device "
    "works on dead memory.",
    source="include/linux/dma-buf.h, dma_buf_attach_ops: move_notify (invalidate_mappings from "
    "7.1) asks the importer to unmap as soon as its fences allow.",
    advice="The importer must unmap after the callback, at the latest when the fences it waits "
    "for have signalled.",
    example="mapping still there 2.0 s after its buffer was invalidated",
    reads=("hazards",),
    on_loss=OnLoss.WITHHOLD,
    thresholds=(
        Threshold("grace_ms", 1000, "ms", "time an importer has to unmap"),
        Threshold("limit_ms", 5000, "ms", "time from which it is an error"),
    ),
)


def check(step: Step, found: Findings) -> None:
    """Look at mappings that ended."""
    for fact in facts(step, What.REVOKE_LATE):
        _hand_in(found, fact)


def check_state(model: Model, found: Findings) -> None:
    """Look at mappings that live."""
    told = model.levels.invalidated
    if not told:
        return
    rows = model.mappings.live.live()
    rows = rows.compress(np.isin(rows["buffer"], np.fromiter(told, np.uint32, len(told))))
    for row in rows:
        attachment = model.registry.attachments.get(int(row["attachment"]))
        if attachment is None or not attachment.flags & Flag.DYNAMIC:
            continue
        since = next((ts for seq, ts in told[int(row["buffer"])] if seq > row["seq"]), None)
        if since is not None:
            fact = Hazard(What.REVOKE_LATE, since)
            fact.about(row)
            late = max(0, model.last_ns - since)
            fact.numbers = {"late_ns": late, "size": int(row["size"]), "still_mapped": True}
            _hand_in(found, fact)


def _hand_in(found: Findings, fact: Hazard) -> None:
    late = number(fact.numbers["late_ns"])
    if late < found.threshold(RULE, "grace_ms") * MS:
        return
    error = late >= found.threshold(RULE, "limit_ms") * MS
    severity = Severity.ERROR if error else Severity.WARNING
    hand_in(RULE, found, fact, _tell, severity=severity, score=float(late))


def _tell(model: Model, fact: Hazard) -> Told:
    late = number(fact.numbers["late_ns"]) / 1e9
    how = "still there" if fact.numbers.get("still_mapped") else "ended"
    return Told(f"mapping {how} {late:.1f} s after its buffer was invalidated", fact.numbers)
