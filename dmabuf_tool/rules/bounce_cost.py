# SPDX-License-Identifier: GPL-2.0-or-later
"""bounce-cost: a device bounces many bytes a second."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.findings import Subject
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="bounce-cost",
    group="D",
    severity=Severity.WARNING,
    title="a device bounces many bytes a second",
    holds="Maps of one device copied mib_per_second MiB and more through swiotlb within one "
    "second.",
    why="The CPU copies every frame, twice if the device writes: bandwidth and latency go, and "
    "the bounce buffer runs out for others.",
    source="kernel/dma/swiotlb.c, swiotlb_bounce().",
    advice="Raise the device's DMA mask or bus limit if the hardware can, allocate in its reach, "
    "or switch the IOMMU on.",
    example="497.7 MiB bounced in one second, mask 0xffffffff",
    thresholds=(Threshold("mib_per_second", 64, "MiB/s", "bytes bounced for one device"),),
)


def check_state(model: Model, found: Findings) -> None:
    """Look at what was counted for each device."""
    limit = found.threshold(RULE, "mib_per_second")
    for row in model.registry.device_counts.live():
        if int(row["peak"]) >= limit << 20:
            when = int(row["peak_ns"])
            found.case(
                RULE,
                (int(row["id"]),),
                partial(_tell, model, row.copy(), limit),
                when=(when, when),
                score=float(row["peak"]),
            )


def _tell(model: Model, row: np.void, limit: int) -> tuple[Told, Subject]:
    device = model.registry.devices.get(int(row["id"]))
    limits = device.limits if device is not None else None
    mask = f", mask {limits.dma_mask:#x}" if limits is not None else ""
    told = Told(
        f"{size(int(row['peak']))} bounced in one second{mask}",
        {
            "bytes_per_second": int(row["peak"]),
            "bounces": int(row["bounces"]),
            "bounced_bytes": int(row["bounced_bytes"]),
            "mib_per_second": limit,
        },
    )
    return told, Subject(site=model.registry.sites[0], device=device)
