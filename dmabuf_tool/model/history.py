# SPDX-License-Identifier: GPL-2.0-or-later
"""The history of one address: every mapping of either level that had it, and its faults.

The model remembers ended mappings for seconds only; a History looks after every batch, when all
that began or ended in it is still known (spans.py, levels.py), and keeps what had the address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.matching import DMA
from dmabuf_tool.model.removed import removed_of
from dmabuf_tool.schema import Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.ranges import Range
    from dmabuf_tool.model.step import Step

PAGE: Final = 4096
MOST: Final = 1 << 16
"""Mappings kept of either level; what comes after them is counted."""


@dataclass(slots=True)
class Life:
    """A mapping that had the address, from begin to end.

    Attributes:
        level: 1 (a DMA address of a device) or 2 (an address in a context).
        buffer, device, context: ids, 0 where not known; `context` of level 1 is its domain.
        start, size: the level-2 range as it is when it ends, bytes; for level 1 the first DMA
            address of the mapping, and the size of its buffer.
        offset: of the address in the buffer, bytes.
        target: what level 2 maps: the first DMA address of its level-1 mapping, None not known.
        source: index into matching.SOURCES, for level 2.
        nested: level 1 translates what level 2 maps. For level 1: whether it translates.
        begun_ns, begun_by: 0 if it is older than the trace; a tgid.
        ended_ns, ended_by: 0 while it lives; a tgid.
    """

    level: int
    buffer: int
    device: int
    context: int
    start: int
    size: int
    offset: int
    begun_ns: int
    begun_by: int
    target: int | None = None
    source: int = 0
    nested: bool = False
    ended_ns: int = 0
    ended_by: int = 0


@dataclass(slots=True)
class History:
    """See the module's docstring. Feed it every step, in order; `lives` is by begin then.

    Args:
        address: bytes; faults are of its page.
        device: name of the device whose address it is, "" for all.
    """

    address: int
    device: str = ""
    faults: list[Hazard] = field(default_factory=list)
    more: int = 0
    """Mappings that had the address and are not kept."""
    cut: int = 0
    """Mappings of which not all entries are known: they may have had it as well."""
    _level1: dict[int, Life] = field(default_factory=dict)
    _level2: dict[tuple[int, int], Life] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _removed: int = 0

    @property
    def lives(self) -> list[Life]:
        """What had the address, by begin."""
        both = [*self._level1.values(), *self._level2.values()]
        return sorted(both, key=lambda one: (one.begun_ns, one.level, one.context))

    def look(self, step: Step) -> None:
        """Take what a batch changed."""
        model = step.model
        incomplete = (step.maps["flags"] & (Flag.CUT | Flag.SEGMENTS_LOST)) != 0
        self.cut += int(np.count_nonzero(incomplete))
        self._look_at_level1(model)
        self._look_at_level2(model)
        for hazard in step.hazards:
            if hazard.what is What.FAULT and self._is_mine(model, hazard.device):
                address = hazard.numbers["address"]
                if isinstance(address, int) and address // PAGE == self.address // PAGE:
                    self.faults.append(hazard)

    def _is_mine(self, model: Model, number: int) -> bool:
        if not self.device:
            return True
        device = model.registry.devices.get(number)
        return device is not None and device.name == self.device

    def _look_at_level1(self, model: Model) -> None:
        spans = model.levels.spans
        low = np.array([self.address], np.uint64)
        hits = spans.find(low, low + np.uint64(1), DMA)
        for owner, start, offset in zip(
            hits.owner.tolist(), hits.start.tolist(), hits.offset.tolist(), strict=True
        ):
            row = spans.row(owner)
            if owner in self._level1 or row is None or not self._is_mine(model, int(row["device"])):
                continue
            if len(self._level1) >= MOST:
                self.more += 1
                continue
            self._open.add(owner)
            self._level1[owner] = Life(
                1, int(row["buffer"]), int(row["device"]), int(row["space"]), int(row["address"]),
                int(row["size"]), offset + self.address - start,
                0 if row["old"] else int(row["ts_ns"]), int(row["tgid"]),
                nested=bool(row["space"]),
            )  # fmt: skip
        for number in sorted(self._open):
            row = spans.row(number)
            if row is not None and not row["end_ns"]:
                continue
            self._open.discard(number)
            if row is not None:
                life = self._level1[number]
                life.ended_ns, life.ended_by = int(row["end_ns"]), int(row["end_tgid"])

    def _look_at_level2(self, model: Model) -> None:
        levels = model.levels
        rows = levels.removed.since(self._removed)
        byte = np.uint64(self.address)
        there = (rows["start"] <= byte) & (byte <= rows["last"])
        for gone in map(removed_of, rows.compress(there).tolist()):
            one = gone.range
            life = self._begin(model, levels.contexts.find(one.context), one)
            if life is not None:
                life.ended_ns, life.ended_by = gone.ts_ns, gone.tgid
                life.start, life.size = one.start, one.size
        self._removed = levels.removed.count
        for context in levels.contexts.live.values():
            found = context.ranges.at(self.address)
            if found is not None:
                self._begin(model, context, found)

    def _begin(self, model: Model, context: Context | None, one: Range) -> Life | None:
        """The life of a range, made at first sight; None if it is not asked for."""
        known = self._level2.get((one.context, one.seq))
        device = one.device or (context.device if context is not None else 0)
        if known is not None or not self._is_mine(model, device):
            return known
        if len(self._level2) >= MOST:
            self.more += 1
            return None
        row = model.levels.spans.row(one.mapping) if one.mapping else None
        life = self._level2[one.context, one.seq] = Life(
            2, one.buffer, device, one.context, one.start, one.size,
            one.offset + self.address - one.start, one.ts_ns, one.tgid,
            target=int(row["address"]) if row is not None else None, source=one.source,
            nested=model.levels.is_nested(one),
        )  # fmt: skip
        return life
