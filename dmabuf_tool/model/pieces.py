# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps in private domains as ranges of buffers: of which device, and what of which buffer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model import matching
from dmabuf_tool.model.constraints import NO_GROUP
from dmabuf_tool.model.contexts import WORKER
from dmabuf_tool.model.level2 import Level2
from dmabuf_tool.model.level_state import LevelState
from dmabuf_tool.model.matching import DMA, PAGES, Pieces
from dmabuf_tool.model.order import Ops, Rare
from dmabuf_tool.model.ranges import RANGE
from dmabuf_tool.model.store import Rows
from dmabuf_tool.schema import Events, Kind

U64 = NDArray[np.uint64]


@dataclass(slots=True)
class Mapped:
    """Parts of maps that are some buffer's, in the order of the stream, shape (n,)."""

    rows: Rows
    nested: NDArray[np.bool_]
    pageless: NDArray[np.bool_]


class Matcher:
    """Asks matching.py with what is known of devices, and learns of them by its answers."""

    def __init__(self, state: LevelState, level2: Level2) -> None:
        self._state = state
        self._level2 = level2

    def devices_at(self, rare: Rare, domains: NDArray[np.uint32], seq: U64) -> NDArray[np.uint32]:
        """The device of each map's context, as far as the stream had told by then."""
        out = np.zeros(len(domains), np.uint32)
        telling = rare.told(Kind.DOMAIN, Kind.DOMAIN_ATTACH)
        telling &= (rare.events["device"] != 0) & (rare.events["result"] == 0)
        told, told_seq = rare.events.compress(telling), rare.seq[telling]
        for number in np.unique(domains).tolist():
            mine = domains == number
            known = self._state.contexts.live[number].device
            out[mine] = known
            first = np.flatnonzero(told["domain"] == number)
            if not known and len(first):
                out[mine & (seq > told_seq[first[0]])] = told["device"][first[0]]
        return out

    def match(self, ops: list[Ops], maps: Events, seq: U64, devices: NDArray[np.uint32]) -> Pieces:
        """Match maps; completes `devices`: the first DMA address in a context that is one device's
        and no other's tells whose context it is."""
        told: list[tuple[int, tuple[int, int]]] = []
        known = self._state.model.registry.devices.values()
        groups = {
            one.id: one.limits.group for one in known if one.limits and one.limits.group != NO_GROUP
        }
        pieces = matching.match(self._state.spans, maps, seq, devices, groups)
        telling = (devices[pieces.asked] == 0) & (pieces.source == DMA)
        if not bool(np.any(telling)):
            return pieces
        rows = self._state.spans.store.rows.take(pieces.position)
        telling &= rows["space"] != 0
        where = np.flatnonzero(telling)
        where = where[np.argsort(pieces.asked[where], kind="stable")]
        again = np.zeros(len(maps), np.bool_)
        numbers, first = np.unique(maps["domain"][pieces.asked[where]], return_index=True)
        for number, place in zip(numbers.tolist(), where[first].tolist(), strict=True):
            device, when = int(rows["device"][place]), int(seq[pieces.asked[place]])
            told.append((when, (number, device)))
            later = (maps["domain"] == number) & (seq > when)
            devices[later] = device
            again |= later
        ops.append(Ops(np.array([when for when, _ in told], np.uint64), self._level2.on_told,
                       [one for _, one in told]))  # fmt: skip
        if bool(np.any(again)):
            return matching.match(self._state.spans, maps, seq, devices, groups)
        return pieces

    def rows(self, maps: Events, seq: U64, devices: NDArray[np.uint32], pieces: Pieces) -> Mapped:
        """Pieces as RANGE rows."""
        at = pieces.asked
        spans = self._state.spans.store.rows.take(pieces.position)
        rows = np.zeros(len(at), RANGE)
        rows["context"] = maps["domain"][at]
        rows["start"] = maps["iova"][at] + (pieces.low - maps["paddr"][at])
        rows["last"] = rows["start"] + (pieces.high - pieces.low) - np.uint64(1)
        rows["offset"], rows["source"] = pieces.offset, pieces.source
        rows["tgid"] = processes(maps)[at]
        rows["ts_ns"], rows["seq"] = maps["ts_ns"][at], seq[at]
        # Another device's mapping tells whose pages these are; it is not bypassed by them.
        mine = devices[at]
        foreign = (pieces.source == PAGES) & (mine != 0) & (spans["device"] != mine)
        rows["buffer"] = spans["buffer"]
        rows["attachment"] = np.where(foreign, 0, spans["attachment"])
        rows["mapping"] = np.where(foreign, 0, spans["id"])
        rows["device"] = np.where(foreign, mine, spans["device"])
        nested = (spans["space"] != 0) & (pieces.source == DMA)
        pageless = (spans["pageless"] != 0) & (pieces.source == PAGES)
        return Mapped(rows, nested, pageless)


def processes(events: Events) -> NDArray[np.uint32]:
    """The process of each event; 0 for a kernel worker's, whose work is its context's owner's."""
    worker = np.char.startswith(events["comm"], WORKER.encode())
    found: NDArray[np.uint32] = np.where(worker, np.uint32(0), events["tgid"])
    return found
