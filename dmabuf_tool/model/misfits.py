# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-1 calls that do not fit each other: mapped twice, unmapped elsewhere, moved unannounced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.schema import Events, Flag

if TYPE_CHECKING:
    from dmabuf_tool.model.spans import Spans
    from dmabuf_tool.model.store import Rows

_MOST_TOLD: Final = 256
"""Facts of one kind told of one batch; a batch of a hostile stream must not take for ever."""

Invalidated = Mapping[int, deque[tuple[int, int]]]
DomainAt = Callable[[int, int], int]
"""(device, ts_ns) -> domain."""


class Misfits:
    """What has to be remembered between batches to see them."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._users: dict[int, int] = {}
        """Attachment -> maps less unmaps, where that is not 0."""
        self._digests: dict[int, tuple[int, int]] = {}
        """Buffer -> digest of the pages and mapping of its newest table."""

    def moved(self, fresh: Rows, invalidated: Invalidated) -> list[Hazard]:
        """Tables with other pages than those of a mapping of the same buffer that lives.

        `fresh`: the spans that began in the batch.
        """
        rows = fresh.compress((fresh["digest"] != 0) & (fresh["buffer"] != 0))
        if not len(rows):
            return []
        rows = rows.take(np.lexsort((rows["seq"], rows["buffer"])))
        buffer, digest = rows["buffer"], rows["digest"]
        first = np.concatenate([[True], buffer[1:] != buffer[:-1]])
        changed = np.concatenate([[True], digest[1:] != digest[:-1]])
        found = []
        for place in np.flatnonzero(first | changed).tolist():
            before = self._digests.get(int(buffer[place]))
            if not first[place]:
                before = (int(digest[place - 1]), int(rows["id"][place - 1]))
            if before is not None and before[0] != int(digest[place]):
                found += self._compare(rows[place], before[1], invalidated)
        for place in np.flatnonzero(np.append(first[1:], True)).tolist():
            self._digests[int(buffer[place])] = (int(digest[place]), int(rows["id"][place]))
        return found[:_MOST_TOLD]

    def released(self, buffer: int) -> None:
        """A buffer is gone."""
        self._digests.pop(buffer, None)

    def detached(self, attachments: NDArray[np.uint32]) -> None:
        """Attachments are gone."""
        if self._users:
            for number in attachments.tolist():
                self._users.pop(number, None)

    def _compare(self, fresh: np.void, before: int, invalidated: Invalidated) -> list[Hazard]:
        old = self._spans.row(before)
        if old is None or not old["seq"] < fresh["seq"] < old["end_seq"]:
            return []
        told = invalidated.get(int(fresh["buffer"]), ())
        if any(old["seq"] < seq < fresh["seq"] for seq, _ in told):
            return []
        hazard = Hazard(What.MOVED, int(fresh["ts_ns"]), severe=True)
        hazard.about(old)
        hazard.numbers = {
            "size": int(old["size"]),
            "mapped_for_ns": int(fresh["ts_ns"] - old["ts_ns"]),
            "old_dma_address": int(old["address"]),
            "new_dma_address": int(fresh["address"]),
        }
        return [hazard]

    def mapped_again(
        self, calls: Rows, unmaps: Events, unmap_seq: NDArray[np.uint64]
    ) -> list[Hazard]:
        """Maps of an attachment that was mapped and not unmapped.

        A map the core makes inside attach (up to 6.14) is nobody's; the importer's own gets the
        same table and counts.
        """
        up = (calls["result"] == 0) & (calls["id"] != 0)
        up &= (calls["flags"] & Flag.IN_ATTACH) == 0
        down = unmaps["mapping"] != 0
        rows = calls.compress(up)
        number = np.concatenate([rows["attachment"], unmaps["attachment"][down]])
        if not len(number):
            return []
        step = np.repeat(np.array([1, -1]), [len(rows), len(number) - len(rows)])
        order = np.lexsort((np.concatenate([rows["seq"], unmap_seq[down]]), number))
        number, step = number[order], step[order]
        begins = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
        count = np.diff(np.append(begins, len(number)))
        level = np.cumsum(step)
        before = level[begins] - step[begins]
        carried = np.array([self._users.get(one, 0) for one in number[begins].tolist()])
        level += np.repeat(carried - before, count)
        below = np.add.reduceat((level < 0).astype(np.int64), begins)
        for index in np.flatnonzero(below).tolist():
            # Unmaps of maps that were not seen: the count starts from nothing again.
            mine = slice(int(begins[index]), int(begins[index] + count[index]))
            level[mine] = _counted(int(carried[index]), step[mine].tolist())
        for one, left in zip(
            number[begins].tolist(), level[begins + count - 1].tolist(), strict=True
        ):
            if left > 0:
                self._users[one] = left
            else:
                self._users.pop(one, None)
        found = []
        for place in np.flatnonzero((level > 1) & (step > 0))[:_MOST_TOLD].tolist():
            found.append(self._again(rows[int(order[place])], int(level[place])))
        return found

    def _again(self, call: np.void, live: int) -> Hazard:
        hazard = Hazard(What.TWICE, int(call["ts_ns"]), detail="one attachment")
        hazard.about(call)
        old = self._spans.of_attachment(int(call["attachment"]), int(call["seq"]))
        row = self._spans.row(old) if old else None
        hazard.numbers = {
            "dma_address": int(call["address"]),
            "before_dma_address": int(row["address"]) if row is not None else None,
            "live": live,
            "size": int(call["size"]),
        }
        return hazard

    def elsewhere(
        self, ended: Rows, unmaps: Events, moved: NDArray[np.uint32], domain_at: DomainAt
    ) -> list[Hazard]:
        """Unmaps through another attachment, in another direction or domain, or of no map.

        `moved`: devices that changed their domain during the trace.
        """
        if not len(unmaps):
            return []
        flags = unmaps["flags"]
        other = (flags & Flag.ELSEWHERE) != 0
        never = ((flags & Flag.UNKNOWN_TABLE) != 0) & ((flags & Flag.PREEXISTING) == 0)
        found = [_elsewhere(one, "another attachment") for one in unmaps[other][:_MOST_TOLD]]
        found += [_elsewhere(one, "a table never mapped") for one in unmaps[never][:_MOST_TOLD]]
        if not len(ended):
            return found
        order = np.argsort(ended["id"], kind="stable")
        place = np.searchsorted(ended["id"][order], unmaps["mapping"])
        place = order[np.minimum(place, len(ended) - 1)]
        same = (ended["id"][place] == unmaps["mapping"]) & ~other & ~never
        same &= ((ended["flags"][place] | flags) & (Flag.IN_ATTACH | Flag.CACHED)) == 0
        turned = np.flatnonzero(same & (ended["direction"][place] != unmaps["direction"]))
        for index in turned[:_MOST_TOLD].tolist():
            hazard = _elsewhere(unmaps[index], "another direction")
            hazard.site = int(ended["site"][place[index]])
            hazard.numbers["map_direction"] = int(ended["direction"][place[index]])
            hazard.numbers["unmap_direction"] = int(unmaps["direction"][index])
            found.append(hazard)
        switched = np.flatnonzero(same & np.isin(unmaps["device"], moved)) if len(moved) else ()
        for index in np.asarray(switched)[:_MOST_TOLD].tolist():
            row = self._spans.row(int(unmaps["mapping"][index]))
            now = domain_at(int(unmaps["device"][index]), int(unmaps["ts_ns"][index]))
            if row is not None and row["space"] and now and now != int(row["space"]):
                hazard = _elsewhere(unmaps[index], "another domain")
                hazard.site = int(row["site"])
                hazard.numbers |= {"map_domain": int(row["space"]), "unmap_domain": now}
                found.append(hazard)
        return found


def _counted(level: int, steps: list[int]) -> list[int]:
    """Running sums that do not go below 0."""
    out = []
    for step in steps:
        level = max(0, level + step)
        out.append(level)
    return out


def _elsewhere(event: np.void, how: str) -> Hazard:
    hazard = Hazard(What.ELSEWHERE, int(event["ts_ns"]), severe=True, detail=how)
    hazard.buffer, hazard.device = int(event["buffer"]), int(event["device"])
    hazard.mapping, hazard.tgid = int(event["mapping"]), int(event["tgid"])
    hazard.numbers = {"dma_address": int(event["address"]), "size": int(event["size"])}
    return hazard
