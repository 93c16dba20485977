# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of level 2, and what is asked of it from outside (`Model.levels`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.contexts import Context, Contexts
from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.matching import DMA
from dmabuf_tool.model.ranges import Range, RangeStore
from dmabuf_tool.model.removed import LEVEL1, Removals
from dmabuf_tool.model.spans import Spans
from dmabuf_tool.model.store import Rows
from dmabuf_tool.model.usage import Usages

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model

MAX_RANGES: Final = 1 << 20


class LevelState:
    """What the files of level 2 share; level2.py, bulk.py and level_events.py change it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.ranges = RangeStore()
        self.contexts = Contexts(self.ranges)
        self.spans = Spans()
        self.usage = Usages()
        self.removed = Removals()
        self.switches: dict[int, deque[tuple[int, int, int]]] = {}
        """Device -> (seq, ts_ns, domain) of its moves, the first one where it was before."""
        self.domains: dict[int, int] = {}
        """Device -> its domain as of its last attach."""
        self.names: dict[int, str] = {}
        """Device -> its name, as far as the stream has come."""
        self.stale: dict[int, int] = {}
        """Ended mappings that ranges still target -> when they ended, ns."""
        self.invalidated: dict[int, deque[tuple[int, int]]] = {}
        """Buffer -> (seq, ts_ns) of its last invalidations."""
        self.untracked = 0
        self.hazards: list[Hazard] = []
        """Facts of the batch."""
        self.on: dict[int, int] = {}
        """Mapping -> number of ranges on top of it."""
        self.of: dict[int, int] = {}
        """Buffer -> number of its ranges."""

    # What is asked from outside

    def domain_at(self, device: int, ts_ns: int) -> int:
        """The domain a device was in at a time, 0 if that is not known."""
        moves = self.switches.get(device)
        if not moves:
            return self.domains.get(device, 0)
        found = moves[0][2]
        for _, when, domain in moves:
            if when <= ts_ns:
                found = domain
        return found

    def device_called(self, wanted: str) -> int:
        """The newest device of a name that was told by now, 0 if there is none."""
        names = self.names.items() if wanted else ()
        return max((device for device, name in names if name == wanted), default=0)

    def on_top(self, mapping: int) -> list[Range]:
        """The ranges that target a mapping."""
        return self.ranges.of_mapping(mapping) if mapping in self.on else []

    def linked(self) -> NDArray[np.uint32]:
        """Mappings with ranges on top."""
        return np.fromiter(self.on, np.uint32, len(self.on))

    def is_nested(self, one: Range) -> bool:
        """Whether level 1 of a range translates."""
        row = self.spans.row(one.mapping) if one.mapping and one.source == DMA else None
        return row is not None and bool(row["space"])

    # What the others change together

    def bound(self, attachments: Iterable[int]) -> None:
        """Contexts get ranges of these."""
        self.model.registry.undone.in_contexts.update(number for number in attachments if number)

    def count(self, rows: Rows, step: int) -> None:
        """So many ranges more (1) or less (-1) on their mappings and of their buffers."""
        for counts, name in ((self.on, "mapping"), (self.of, "buffer")):
            numbers, times = np.unique(rows[name], return_counts=True)
            for number, many in zip(numbers.tolist(), times.tolist(), strict=True):
                if number:
                    self._step(counts, number, step * many)

    def count_one(self, one: Range, step: int) -> None:
        """The same for one range."""
        if one.mapping:
            self._step(self.on, one.mapping, step)
        if one.buffer:
            self._step(self.of, one.buffer, step)

    def _step(self, counts: dict[int, int], number: int, step: int) -> None:
        left = counts.get(number, 0) + step
        if left:
            counts[number] = left
            return
        del counts[number]
        if counts is self.on:
            self.stale.pop(number, None)

    def level1_of(self, one: Range) -> tuple[int, ...]:
        """The values of removed.LEVEL1 under a range, all 0 where it has none."""
        row = self.spans.row(one.mapping) if one.mapping else None
        return (0, 0, 0, 0) if row is None else tuple(row[LEVEL1].item())

    def tell(
        self,
        what: What,
        ts_ns: int,
        context: Context | None,
        part: Range,
        *,
        severe: bool = False,
        detail: str = "",
        **numbers: int | float | str | bool | None,
    ) -> Hazard:
        """A fact about a range."""
        row = self.spans.row(part.mapping) if part.mapping else None
        owner = context.tgid if context is not None else 0
        hazard = Hazard(
            what, ts_ns, context, part.buffer, part.device, part.mapping,
            int(row["site"]) if row is not None else 0, owner or part.tgid, severe, detail,
            {"address": part.start, "size": part.size, "offset": part.offset, **numbers},
        )  # fmt: skip
        self.hazards.append(hazard)
        return hazard
