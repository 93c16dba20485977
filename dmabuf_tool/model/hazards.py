# SPDX-License-Identifier: GPL-2.0-or-later
"""What the two levels did to each other in a batch: facts that the rules of group B speak of."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from dmabuf_tool.model.contexts import Context


class What(enum.Enum):
    """Kinds of facts."""

    STALE_ENDED = "a range went away whose level-1 mapping had ended before"
    SWITCHED = "a device went to another domain while it had level-1 mappings"
    ELSEWHERE = "an unmap that does not fit its map"
    TWICE = "a mapping or an address was mapped again while it was mapped"
    OUTLIVED = "a buffer was released while a context mapped it"
    REUSED = "a new mapping got an address that a stale range still targets"
    PARTIAL = "an unmap that unmapped another size than asked"
    REVOKE_LATE = "a mapping ended some time after its buffer was invalidated"
    MOVED = "a map gave other pages than a mapping that lives"
    FAULT = "an IOMMU fault"


@dataclass(slots=True)
class Hazard:
    """One fact.

    Attributes:
        severe: the worse of the two grades a rule has.
        mapping, buffer, device: ids, 0 for none.
        tgid: the process it is about.
        detail: what kind of it, for a person.
        numbers: evidence.
    """

    what: What
    ts_ns: int
    context: Context | None = None
    buffer: int = 0
    device: int = 0
    mapping: int = 0
    site: int = 0
    tgid: int = 0
    severe: bool = False
    detail: str = ""
    numbers: dict[str, int | float | str | bool | None] = field(default_factory=dict)

    def about(self, row: np.void) -> None:
        """Take the objects of a MAPPING or SPAN row."""
        self.buffer, self.device, self.mapping = (
            int(row["buffer"]), int(row["device"]), int(row["id"])
        )  # fmt: skip
        self.site, self.tgid = int(row["site"]), int(row["tgid"])
