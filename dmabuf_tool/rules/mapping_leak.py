# SPDX-License-Identifier: GPL-2.0-or-later
"""mapping-leak: mappings that are not unmapped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="mapping-leak",
    group="C",
    severity=Severity.WARNING,
    title="mappings that are not unmapped",
    holds="A mapping made during the trace still has users grace_ms after the process that made "
    "it has exited, and no other process used its attachment; or one attachment has live_count "
    "live mappings and more.",
    why="A mapping holds pages, I/O virtual addresses and often a pin; the device may go on "
    "writing into memory nobody looks at.",
    source="drivers/dma-buf/dma-buf.c: every dma_buf_map_attachment() needs its "
    "dma_buf_unmap_attachment() before detach.",
    advice="Look for the missing dma_buf_unmap_attachment() in the importer; the stack of its "
    "attach names the driver.",
    example="mapping left by edu_attach [edu] after app (pid 312) exited: 1.0 MiB; exporter system",
    on_loss=OnLoss.WITHHOLD,
    thresholds=(
        Threshold("grace_ms", 250, "ms", "time a driver has to clean up after an exit"),
        Threshold("live_count", 64, "mappings", "live mappings of one attachment"),
    ),
)


def check_state(model: Model, found: Findings) -> None:
    """Look at what is mapped now."""
    rows = model.live_mappings()
    rows = rows.compress((rows["users"] > 0) & (rows["attachment"] != 0))
    counts = model.registry.attachment_counts
    # An unmap of an unknown table may have been one of these (see detach_while_mapped.py).
    rows = rows.compress(counts.values("unknown_unmaps", rows["attachment"], 1) == 0)
    _after_exit(model, found, rows)
    _piled_up(model, found, rows)


def _after_exit(model: Model, found: Findings, rows: Rows) -> None:
    exited = {tgid for tgid in np.unique(rows["tgid"]).tolist() if model.processes.exits_of(tgid)}
    if not exited:
        return
    rows = rows.compress(np.isin(rows["tgid"], list(exited)))
    counts = model.registry.attachment_counts
    alone = ~counts.values("shared", rows["attachment"], 1)
    grace_ns = found.threshold(RULE, "grace_ms") * 1_000_000
    for row in rows.compress(alone):
        tgid, ts_ns = int(row["tgid"]), int(row["ts_ns"])
        gone = model.processes.exit_after(tgid, ts_ns)
        last_ns = int(counts.rows["last_ns"][counts.position(int(row["attachment"]))])
        if gone is None or last_ns > gone or gone + grace_ns > model.last_ns:
            continue
        found.case(
            RULE,
            (int(row["site"]), "exit"),
            partial(_tell_exit, model, found, row.copy(), gone),
            when=(ts_ns, gone),
            score=float(row["size"]),
            buffers=(int(row["buffer"]),),
        )


def _tell_exit(model: Model, found: Findings, row: np.void, gone: int) -> tuple[Told, Subject]:
    subject = found.subject(row)
    comm = model.processes.comm(subject.tgid) or "process"
    told = Told(
        f"mapping left by {importer(subject.site)} after {comm} (pid {subject.tgid}) exited: "
        f"{size(int(row['size']))}; exporter {exporter(subject.site)}",
        {
            "size": int(row["size"]),
            "mapped_for_ns": model.last_ns - int(row["ts_ns"]),
            "since_exit_ns": model.last_ns - gone,
            "address": int(row["address"]),
        },
    )
    return told, subject


def _piled_up(model: Model, found: Findings, rows: Rows) -> None:
    limit = found.threshold(RULE, "live_count")
    ids, first, many = np.unique(rows["attachment"], return_index=True, return_counts=True)
    for place in np.flatnonzero(many >= limit).tolist():
        row = rows[first[place]]
        found.case(
            RULE,
            (int(ids[place]), "many"),
            partial(_tell_many, found, row.copy(), int(many[place]), limit),
            when=(int(row["ts_ns"]), model.last_ns),
            score=float(many[place]),
            buffers=(int(row["buffer"]),),
        )


def _tell_many(found: Findings, row: np.void, many: int, limit: int) -> tuple[Told, Subject]:
    subject = found.subject(row)
    told = Told(
        f"{many} live mappings of one attachment by {importer(subject.site)}; "
        f"exporter {exporter(subject.site)}",
        {"live_mappings": many, "live_count": limit, "size": int(row["size"])},
    )
    return told, subject
