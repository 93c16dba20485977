# SPDX-License-Identifier: GPL-2.0-or-later
"""What one batch did to the model, as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.hazards import Hazard
from dmabuf_tool.model.objects import Attachment, Buffer
from dmabuf_tool.model.store import Rows
from dmabuf_tool.schema import Events, Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model


@dataclass(slots=True)
class Step:
    """The changes of one batch; arrays are in the order of the stream.

    Attributes:
        calls: a MAPPING row for every MAP event: good, failed, or of a cached table.
        maps: those of `calls` that made a table whose entries were seen.
        failed: those of `calls` that returned an errno.
        ended: MAPPING rows of mappings that ended, with their end.
        unmaps, pins, cpu, invalidates: events under the "map" names; pins has UNPIN too.
        iommu, iommu_seq: IOMMU_MAP and IOMMU_UNMAP under the "iommu" names, and their place.
        attaches: refused ones too. detaches: those that were live. exports, releases: buffers.
        released: buffers whose release returned, now or in an earlier batch begun.
        hazards: what the two levels did to each other.
    """

    model: Model
    events: Events
    seq: NDArray[np.uint64]
    calls: Rows
    maps: Rows
    failed: Rows
    ended: Rows
    unmaps: Events
    pins: Events
    cpu: Events
    invalidates: Events
    iommu: Events
    iommu_seq: NDArray[np.uint64]
    exports: list[Buffer]
    attaches: list[Attachment]
    detaches: list[Attachment]
    releases: list[Buffer]
    released: list[Buffer]
    hazards: list[Hazard]


def split_calls(calls: Rows) -> tuple[Rows, Rows]:
    """`maps` and `failed` of the rows of all MAP events."""
    good = calls["result"] == 0
    new = good & ((calls["flags"] & Flag.CACHED) == 0) & (calls["entries"] != 0)
    return calls.compress(new), calls.compress(~good)
