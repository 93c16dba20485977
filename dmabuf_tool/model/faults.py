# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose address an IOMMU fault names: what lived there at the time of the fault, or shortly before.

A fault is told later than it happened, so the state of its time is taken from what is remembered:
ranges and mappings carry when they began and ended.

EVENT fields of a FAULT (payload l2): address; offset is the reason or flags as the IOMMU gave it;
context is the PASID; provider says how it was told (`TOLD_BY`); owner is the requester (PCI
segment << 16 | bus << 8 | devfn, or a stream id) plus 1, 0 unknown; client is what was tried
(`TRIED`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.model.removed import Removed, removed_of
from dmabuf_tool.model.spans import REMEMBERED_NS
from dmabuf_tool.schema import DIRECTIONS

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.level_state import LevelState
    from dmabuf_tool.model.ranges import Range

TOLD_BY: Final = ("unknown", "vt-d", "amd-vi", "smmuv3", "smmuv2", "io_page_fault")
TRIED: Final = ("access", "read", "write")

LIVE, ENDED, OTHER, NEVER_MAPPED = "live", "unmapped", "another device's", "never mapped"
TOO_MANY: Final = "not looked up"
A_SECOND: Final = 100
"""Faults of a device that are looked up in a second: a device that runs wild makes more than
anybody reads, and each is searched for in all that is remembered."""
PAGE: Final = 4096


class Meter:
    """Which faults of one device are looked up: the first of each second of the stream's time."""

    def __init__(self) -> None:
        self._second = self._seen = 0

    def lets(self, ts_ns: int) -> bool:
        """Whether a fault of this time is."""
        second = ts_ns // 1_000_000_000
        if second != self._second:
            self._second, self._seen = second, 0
        self._seen += 1
        return self._seen <= A_SECOND


def unexplained(levels: LevelState, event: dict[str, Any]) -> Hazard:
    """A fault that is counted only: `detail` is TOO_MANY."""
    device = event["device"] or levels.device_called(pci_name(event["owner"]))
    hazard = Hazard(What.FAULT, event["ts_ns"], device=device, severe=True, detail=TOO_MANY)
    hazard.numbers = _said(event)
    return hazard


def _said(event: dict[str, Any]) -> dict[str, int | float | str | bool | None]:
    """What the IOMMU says of a fault."""
    numbers: dict[str, int | float | str | bool | None] = {
        "address": event["address"],
        "tried": TRIED[event["client"]] if event["client"] < len(TRIED) else TRIED[0],
        "told_by": TOLD_BY[event["provider"]] if event["provider"] < len(TOLD_BY) else TOLD_BY[0],
        "reason": event["offset"],
    }
    if event["owner"]:
        numbers["requester"] = event["owner"] - 1
    return numbers


def explain(levels: LevelState, event: dict[str, Any]) -> Hazard:
    """The verdict on one fault: `detail` is LIVE, ENDED, OTHER or NEVER_MAPPED.

    The best answer of these, in this order: what the device's address space of that time has
    there, what it had, what the DMA domain it was switched away from has, what others have.
    """
    address, ts_ns = event["address"], event["ts_ns"]
    device = event["device"] or levels.device_called(pci_name(event["owner"]))
    hazard = Hazard(What.FAULT, ts_ns, device=device, severe=True, detail=NEVER_MAPPED)
    hazard.numbers = _said(event)
    now = levels.domain_at(device, ts_ns) if device else 0
    context = levels.contexts.find(now)
    hazard.context = context
    found = _in_ranges(levels, hazard, address, ts_ns, context) if context is not None else False
    found = found or _in_spans(levels, hazard, address, ts_ns, now)
    found = found or _in_ranges(levels, hazard, address, ts_ns, None)
    if not found:
        hazard.numbers["remembered_ns"] = REMEMBERED_NS
    return hazard


def pci_name(requester: int) -> str:
    """What the requester of a FAULT is called in sysfs; "" for none.

    A stream id of an SMMU is taken for a PCI requester id: firmware maps them one to one nearly
    everywhere (IORT, iommu-map).
    """
    if not requester:
        return ""
    number = requester - 1
    segment, bus, place = number >> 16, number >> 8 & 0xFF, number & 0xFF
    return f"{segment:04x}:{bus:02x}:{place >> 3:02x}.{place & 7}"


def _in_ranges(
    levels: LevelState, hazard: Hazard, address: int, ts_ns: int, only: Context | None
) -> bool:
    """Look at level 2: of one context, or of all."""
    contexts = [only] if only is not None else list(levels.contexts.live.values())
    best: tuple[int, Range, int, int] | None = None  # ended (0: not), range, by whom, context
    for context in contexts:
        one = context.ranges.at(address)
        if one is not None and one.ts_ns <= ts_ns:
            best = (0, one, 0, context.id)
            break
    if best is None:
        gone = _gone(levels, address, ts_ns, only)
        if gone is not None:
            ended = gone.ts_ns if gone.ts_ns <= ts_ns else 0
            best = (ended, gone.range, gone.tgid, gone.range.context)
    if best is None:
        return False
    ended, one, by, number = best
    hazard.context = owner = levels.contexts.find(number)
    hazard.buffer, hazard.mapping = one.buffer, one.mapping
    row = levels.spans.row(one.mapping) if one.mapping else None
    hazard.site = int(row["site"]) if row is not None else 0
    hazard.tgid = owner.tgid if owner is not None and owner.tgid else one.tgid
    hazard.numbers |= {"level": 2, "source": SOURCES[one.source],
                       "offset": one.offset + address - one.start}  # fmt: skip
    _ended(hazard, ended, by, ts_ns)
    if only is None and hazard.device and one.device != hazard.device:
        hazard.detail = OTHER
        hazard.numbers["other_device"] = one.device
    return True


def _gone(levels: LevelState, address: int, ts_ns: int, only: Context | None) -> Removed | None:
    """The range that ended after a time, or else shortly and last before it."""
    rows = levels.removed.holding(address)
    there = rows["ts_ns"] <= ts_ns
    there &= rows["ended_ns"] + np.uint64(REMEMBERED_NS) >= ts_ns
    if only is not None:
        there &= rows["context"] == only.id
    place = np.flatnonzero(there)
    if not len(place):
        return None
    ended = rows["ended_ns"][place]
    lived = np.flatnonzero(ended > ts_ns)
    best = lived[-1] if len(lived) else len(ended) - 1 - int(np.argmax(ended[::-1]))
    return removed_of(rows[place[best]].item())


def _in_spans(levels: LevelState, hazard: Hazard, address: int, ts_ns: int, now: int) -> bool:
    """Look at level 1, in all spaces."""
    spans = levels.spans
    # A page at once: an IOMMU may report the page, or the byte.
    low = np.array([address], np.uint64)
    hits = spans.find(low, low + np.uint64(1), 0)
    if not len(hits):
        return False
    position = spans.store.find(hits.owner)
    known = position >= 0
    hits, position = hits.take(known), position[known]
    rows = spans.store.rows.take(position)
    begun = rows["ts_ns"] <= ts_ns
    live = begun & ((rows["end_ns"] == 0) | (rows["end_ns"] > ts_ns))
    gone = begun & ~live & (rows["end_ns"] + np.uint64(REMEMBERED_NS) >= ts_ns)
    score = np.where(live, 2, np.where(gone, 1, -1)).astype(np.int64)
    mine = (rows["device"] == hazard.device) | (hazard.device == 0)
    score = np.where(score > 0, score + 4 * mine, score)
    if not bool(np.any(score > 0)):
        return False
    best = int(np.lexsort((rows["end_ns"], rows["seq"], score))[-1])
    row = rows[best]
    hazard.buffer, hazard.mapping = int(row["buffer"]), int(row["id"])
    hazard.site, hazard.tgid = int(row["site"]), int(row["tgid"])
    hazard.numbers |= {
        "level": 1,
        "offset": int(hits.offset[best]) + address - int(hits.start[best]),
        "direction": DIRECTIONS[min(int(row["direction"]), 3)],
    }
    ended = 0 if live[best] else int(row["end_ns"])
    _ended(hazard, ended, int(row["end_tgid"]), ts_ns)
    if not hazard.device:
        hazard.device = int(row["device"])
    elif not mine[best]:
        hazard.detail = OTHER
        hazard.numbers["other_device"] = int(row["device"])
    elif not ended and now and row["space"] and now != int(row["space"]):
        # It lives, but not where the device was at the time.
        hazard.numbers["mapped_in"] = int(row["space"])
        hazard.numbers["device_in"] = now
    elif not ended:
        hazard.context = levels.contexts.find(int(row["space"])) or hazard.context
    return True


def _ended(hazard: Hazard, ended: int, by: int, ts_ns: int) -> None:
    hazard.detail = ENDED if ended else LIVE
    if ended:
        hazard.numbers["since_unmap_ns"] = ts_ns - ended
        hazard.numbers["unmapped_by"] = by
