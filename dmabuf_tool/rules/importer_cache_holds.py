# SPDX-License-Identifier: GPL-2.0-or-later
"""importer-cache-holds: importers keep buffers whose clients have closed them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.wording import exporter, importer, many, size

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="importer-cache-holds",
    group="C",
    severity=Severity.WARNING,
    title="an importer keeps buffers that no process holds",
    holds="held_count buffers and more are attached by one importer to one device for one "
    "process, no process holds them by a descriptor or a mapping, and nothing was done to them for "
    "idle_ms. Needs a look at all of /proc.",
    why="The compositor grows while its descriptors stay few: imported buffers live as long as "
    "the importer's handle does.",
    source="drivers/gpu/drm/drm_prime.c: an imported buffer stays attached until its last GEM "
    "handle is closed.",
    advice="Close the handles (GEM, framebuffer, texture) of buffers whose client is gone.",
    example="142 buffers (1.1 GiB) attached by drm_gem_prime_import_dev [drm] for kwin (pid 900), "
    "held by no process, idle; exporter amdgpu",
    on_loss=OnLoss.WITHHOLD,
    thresholds=(
        Threshold("held_count", 64, "buffers", "buffers kept that are told"),
        Threshold("idle_ms", 10000, "ms", "time since anything was done to them"),
    ),
)


def check_state(model: Model, found: Findings) -> None:
    """Look at the attachments there are now."""
    if model.holders.latest is None:
        return
    idle_ns = found.threshold(RULE, "idle_ms") * 1_000_000
    kept: dict[int, dict[int, Attachment]] = {}
    for attachment in model.registry.attachments.values():
        buffer = attachment.buffer
        if buffer is None or buffer.released_ns or model.holders.of(buffer.ino) != ():
            continue
        counts = model.registry.counts_of(buffer.id)
        if counts is not None and int(counts["last_ns"]) + idle_ns <= model.last_ns:
            kept.setdefault(attachment.site.id, {})[buffer.id] = attachment
    limit = found.threshold(RULE, "held_count")
    for site, by_buffer in kept.items():
        if site and len(by_buffer) >= limit:
            attachments = list(by_buffer.values())
            found.case(
                RULE,
                (site,),
                partial(_tell, found, attachments),
                when=(min(one.ts_ns for one in attachments), model.last_ns),
                score=float(len(by_buffer)),
                buffers=tuple(by_buffer),
                count=len(by_buffer),
            )


def _tell(found: Findings, attachments: list[Attachment]) -> tuple[Told, Subject]:
    worst = max(attachments, key=lambda one: (one.buffer.size if one.buffer else 0, -one.id))
    held = sum(one.buffer.size for one in attachments if one.buffer)
    comm = found.model.processes.comm(worst.tgid) or "process"
    told = Told(
        f"{many(len(attachments), 'buffer')} ({size(held)}) attached by {importer(worst.site)} for "
        f"{comm} "
        f"(pid {worst.tgid}), held by no process, idle; exporter {exporter(worst.site)}",
        {
            "kept_buffers": len(attachments),
            "kept_bytes": held,
            "held_count": found.threshold(RULE, "held_count"),
            "idle_ms": found.threshold(RULE, "idle_ms"),
        },
    )
    return told, found.subject_of(worst)
