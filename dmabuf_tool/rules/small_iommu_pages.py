# SPDX-License-Identifier: GPL-2.0-or-later
"""small-iommu-pages: the IOMMU uses small pages where larger would fit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.wording import exporter, importer, size
from dmabuf_tool.schema import Events, Flag, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings, Subject

RULE = Rule(
    id="small-iommu-pages",
    group="D",
    severity=Severity.INFO,
    title="the IOMMU uses small pages where larger would fit",
    holds="A contiguous range of a dma-buf holds a whole page of a larger size the domain has "
    "(pgsize_bitmap), and its I/O virtual and physical address are not alike in the bits below "
    "that size.",
    why="Many small pages fill the IOTLB: the device waits for page walks.",
    source="drivers/iommu/iommu.c, iommu_pgsize(): a page must be aligned in both addresses.",
    advice="Allocate the buffer aligned to the larger page; the IOVA allocator aligns by size.",
    example="2.0 MiB range at iova 0xfff01000, physical 0x80000000: pages of 4.0 KiB, 2.0 MiB "
    "would fit; exporter system, importer edu_attach [edu]",
    reads=("iommu",),
)


def check(step: Step, found: Findings) -> None:
    """Look at what dma-buf maps entered into the IOMMU in a batch."""
    events = step.iommu
    ours = (events["kind"] == Kind.IOMMU_MAP) & ((events["flags"] & int(Flag.INSIDE)) != 0)
    ours &= (events["result"] == 0) & (events["attachment"] != 0)
    events = events.compress(ours)
    for number in np.unique(events["domain"]).tolist():
        domain = step.model.registry.domains.get(number)
        if domain is None:
            continue
        inside = events.compress(events["domain"] == number)
        for page in page_sizes(domain.pgsize_bitmap)[1:]:
            hit = misses(inside, page)
            _hand_in(found, inside.compress(hit), page, domain.pgsize_bitmap)
            inside = inside.compress(~hit)


def page_sizes(bitmap: int) -> list[int]:
    """The page sizes of a domain, the smallest first."""
    return [1 << bit for bit in range(64) if bitmap >> bit & 1]


def misses(events: Events, page: int) -> NDArray[np.bool_]:
    """Which ranges hold a whole physical page of a size that the IOVA does not line up with."""
    one, low = np.uint64(page), np.uint64(page - 1)
    first = (events["paddr"] + low) & ~low
    fits = (first >= events["paddr"]) & (first - events["paddr"] + one <= events["size"])
    missed: NDArray[np.bool_] = fits & (((events["iova"] ^ events["paddr"]) & low) != 0)
    return missed


def _hand_in(found: Findings, events: Events, page: int, bitmap: int) -> None:
    for attachment in np.unique(events["attachment"]).tolist():
        some = events.compress(events["attachment"] == attachment)
        worst = some[int(np.argmax(some["size"]))]
        subject = found.subject_at(worst)
        found.case(
            RULE,
            (subject.site.id, page),
            partial(_tell, subject, worst.copy(), page, bitmap),
            when=(int(some["ts_ns"].min()), int(some["ts_ns"].max())),
            score=float(worst["size"]),
            buffers=tuple(np.unique(some["buffer"]).tolist()),
            count=len(some),
        )


def _tell(subject: Subject, event: np.void, page: int, bitmap: int) -> tuple[Told, Subject]:
    iova, paddr, length = (int(event[name]) for name in ("iova", "paddr", "size"))
    unlike = iova ^ paddr
    used = max(
        one for one in page_sizes(bitmap) if not unlike & (one - 1) or one == bitmap & -bitmap
    )
    told = Told(
        f"{size(length)} range at iova {iova:#x}, physical {paddr:#x}: pages of {size(used)}, "
        f"{size(page)} would fit; exporter {exporter(subject.site)}, "
        f"importer {importer(subject.site)}",
        {"iova": iova, "physical": paddr, "size": length, "page_used": used, "page_possible": page},
    )
    return told, subject
