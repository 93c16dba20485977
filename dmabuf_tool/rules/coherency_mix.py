# SPDX-License-Identifier: GPL-2.0-or-later
"""coherency-mix: devices of different coherency share a buffer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment, Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="coherency-mix",
    group="A",
    severity=Severity.WARNING,
    title="devices of different coherency share a buffer",
    holds="Warning: while a non-coherent device had the buffer mapped, a coherent one mapped and "
    "unmapped it, and nobody synced (begin or end of CPU access) before the mapping ended. Info: "
    "devices of both kinds are attached at once.",
    why="What the coherent device writes may stay in the CPU's caches, which the other does not "
    "see: old pixels, torn frames. Only map, unmap and syncs of the non-coherent device write "
    "caches back.",
    source="kernel/dma/direct.c: arch_sync_dma_for_device() runs for devices that are not "
    "dma_coherent, at map, unmap and sync.",
    advice="Bracket accesses by DMA_BUF_IOCTL_SYNC, map the non-coherent device for each frame, or "
    "allocate from an uncached heap.",
    example="mapped by a non-coherent device for 2.4 s while a coherent one used it, never synced; "
    "exporter system, importer vb2-dma-contig",
    reads=("ended", "attaches"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the ended mappings and the attaches of a batch."""
    coherent = step.model.registry.sites.effective["coherent"]
    if bool(coherent.all()):
        return
    _hand_in(found, step.ended, coherent)
    for attachment in step.attaches:
        mixed = attachment.mixes_coherency and not attachment.result
        if mixed and attachment.buffer is not None:
            found.case(
                RULE,
                (attachment.site.id,),
                partial(_tell_attach, found, attachment),
                when=(attachment.ts_ns, attachment.ts_ns),
                severity=Severity.INFO,
                buffers=(attachment.buffer.id,),
            )


def check_state(model: Model, found: Findings) -> None:
    """Look at what is mapped now."""
    coherent = model.registry.sites.effective["coherent"]
    if not bool(coherent.all()):
        rows = model.live_mappings()
        rows["end_ns"] = model.last_ns
        _hand_in(found, rows, coherent)


def _hand_in(found: Findings, rows: Rows, coherent: NDArray[np.bool_]) -> None:
    bad = rows["mixed"] & ~rows["synced"] & ~coherent[rows["site"]] & (rows["site"] != 0)
    rows = rows.compress(bad)
    age = (rows["end_ns"] - rows["ts_ns"]).astype("i8")
    found.rows(RULE, rows, score=age, at="end_ns", tell=_tell)


def _tell(row: np.void, site: Site) -> Told:
    age = int(row["end_ns"]) - int(row["ts_ns"])
    return Told(
        f"mapped by a non-coherent device for {age / 1e9:.1f} s while a coherent one mapped it "
        f"too, never synced; exporter {exporter(site)}, importer {importer(site)}",
        {"mapped_ns": age, "size": int(row["size"]), "synced": False},
    )


def _tell_attach(found: Findings, attachment: Attachment) -> tuple[Told, Subject]:
    site = attachment.site
    kind = "coherent" if site.effective.coherent else "non-coherent"
    told = Told(
        f"a {kind} device joins devices of the other kind; "
        f"exporter {exporter(site)}, importer {importer(site)}",
        {"coherent": site.effective.coherent},
    )
    return told, found.subject_of(attachment)
