# SPDX-License-Identifier: GPL-2.0-or-later
"""union-unsatisfiable: no layout serves all devices attached to a buffer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.model.union import Union, union
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.undone import inferred_one_run, refused_in, refused_now
from dmabuf_tool.rules.wording import exporter, importer, size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.objects import Attachment, Site
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="union-unsatisfiable",
    group="A",
    severity=Severity.WARNING,
    title="no layout of the buffer serves all attached devices",
    holds="The smallest segment size times the smallest segment count over the devices attached "
    "at once (declared, inferred or configured) is less than the buffer; or a device that is not "
    "behind an IOMMU needs one run, and took back the scattered table of an exporter of pages.",
    why="Whoever maps last fails, or the device with the tightest limits uses a part of the "
    "buffer: the devices cannot share this allocation.",
    source="The series of 2015 refused such an attach in dma-buf's core; it never landed, so "
    "nobody checks.",
    advice="Allocate for the most constrained device: let it export, or use a contiguous (CMA) "
    "heap. report --by buffer shows which device contributes which limit.",
    example="devices together take 1.0 MiB (16 segments of 64.0 KiB), the buffer has 8.0 MiB; "
    "exporter system",
    reads=("attaches", "detaches"),
)


def check(step: Step, found: Findings) -> None:
    """Look at the attaches of a batch, and at what detached attachments refused."""
    for attachment in step.attaches:
        buffer = attachment.buffer
        if attachment.result or buffer is None:
            continue
        together = union([*attachment.others, attachment.site])
        if not together.serves(buffer.size):
            found.case(
                RULE,
                (attachment.site.id, "union"),
                partial(_tell_union, found, attachment, together),
                when=(attachment.ts_ns, attachment.ts_ns),
                score=float(buffer.size),
                buffers=(buffer.id,),
            )
    if len(step.detaches):
        _refused(refused_in(step), step.model, found)


def check_state(model: Model, found: Findings) -> None:
    """Look at what living attachments refused up to now."""
    _refused(refused_now(model), model, found)


def _refused(rows: Rows, model: Model, found: Findings) -> None:
    direct = ~model.registry.sites.effective["translated"][rows["site"]]
    rows = rows.compress(direct & inferred_one_run(rows, model))
    found.rows(RULE, rows, score=rows["size"], at="end_ns", tell=_tell_pages)


def _tell_union(found: Findings, attachment: Attachment, together: Union) -> tuple[Told, Subject]:
    devices = found.model.registry.devices
    names = {number: one.name for number, one in devices.items()}
    wanted = attachment.buffer.size if attachment.buffer else 0
    told = Told(
        f"devices together take {size(together.capacity())} ({together.max_segment_count} "
        f"segments of {size(together.max_segment_size)}), the buffer has {size(wanted)}; "
        f"exporter {exporter(attachment.site)}",
        {
            "capacity": together.capacity(),
            "size": wanted,
            "max_segment_size": together.max_segment_size,
            "segment_size_of": names.get(together.segment_size_device),
            "max_segment_count": together.max_segment_count,
            "count_of": names.get(together.count_device),
            "attached": len(attachment.others) + 1,
        },
    )
    return told, found.subject_of(attachment)


def _tell_pages(row: np.void, site: Site) -> Told:
    return Told(
        f"{importer(site)} needs one run and has no IOMMU, {exporter(site)} gives pages: "
        f"{int(row['runs'])} runs of {size(int(row['longest_run']))} at most for "
        f"{size(int(row['size']))}",
        {
            "runs": int(row["runs"]),
            "longest_run": int(row["longest_run"]),
            "size": int(row["size"]),
            "max_segment_count": site.effective.max_segment_count,
            "translated": False,
        },
    )
