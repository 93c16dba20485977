# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-1 mappings: one row each, live ones by id, the last ended ones in a ring.

A mapping begins with a MAP that gave a new table and ends with the UNMAP of that table. Up to
6.14 an exporter may keep the table in the attachment (drivers/dma-buf/dma-buf.c,
cache_sgt_mapping, gone by 6.16): maps then return it again, unmaps do nothing (flag CACHED) and
DETACH ends it. `users` counts the importer's maps that were not unmapped.

All work is on whole batches. Nothing here depends on where a stream was cut: what a batch does
to a mapping is decided by sequence numbers, not by the order of the steps below.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.scatter import SUMMARY_FIELDS
from dmabuf_tool.model.store import Ring, Rows, Store, join, put
from dmabuf_tool.schema import Events, Flag

ENDED_KEPT: Final = 1 << 14
MAX_LIVE: Final = 1 << 21


class End(enum.IntEnum):
    """What ended a mapping."""

    LIVE = 0
    UNMAP = 1
    DETACH = 2
    """The importer never unmapped it."""
    DETACH_CACHED = 3
    """The exporter's cached table: detach is its regular end."""
    RELEASE = 4
    """Its buffer is gone and no unmap or detach was seen: events were lost."""


MAPPING: Final = np.dtype(
    [
        ("id", "<u4"),
        ("attachment", "<u4"),
        ("buffer", "<u4"),
        ("device", "<u4"),
        ("site", "<u4"),
        ("domain", "<u4"),
        ("tgid", "<u4"),
        ("tid", "<u4"),
        ("seq", "<u8"),  # place in the stream of the MAP event
        ("ts_ns", "<u8"),  # of its return
        ("duration_ns", "<u8"),
        ("result", "<i4"),
        ("dma_errno", "<i4"),
        ("dma_attrs", "<u4"),
        ("nents", "<u4"),
        ("orig_nents", "<u4"),
        ("size", "<u8"),  # of the buffer
        ("address", "<u8"),
        ("direction", "u1"),
        ("flags", "<u2"),
        ("bounces", "<u4"),
        ("bounced_bytes", "<u8"),
        ("iommu_bytes", "<u8"),  # entered into the IOMMU inside the map
        *SUMMARY_FIELDS,
        ("users", "<i4"),
        ("end", "u1"),
        ("end_tid", "<u4"),
        ("end_ns", "<u8"),
        ("end_seq", "<u8"),
        ("end_stack", "<i4"),  # of the attachment's first unmap, if it was this one; -1: not known
        ("synced", "?"),  # CPU access to the buffer between begin and end
        ("mixed", "?"),  # a mapping of a device of the other coherency began and ended in it
    ]
)
"""A mapping, or a MAP that failed. Times in ns, lengths in bytes."""


@dataclass(frozen=True, slots=True)
class Detaches:
    """The attachments that ended in a batch: ids (n,) that differ, by id, with their events."""

    ids: NDArray[np.uint32]
    seq: NDArray[np.uint64]
    ts_ns: NDArray[np.uint64]
    tid: NDArray[np.uint32]
    end: NDArray[np.uint8]

    def place(self, ids: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Where each id is among the detached, -1 where it is not."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.intp)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)


class Mappings:
    """Live mappings and the last ended ones."""

    def __init__(self) -> None:
        self.live = Store(MAPPING)
        self.ended = Ring(MAPPING, ENDED_KEPT)
        self.untracked = 0
        """Mappings not kept because there were too many."""

    def apply(
        self, maps: Rows, unmaps: Events, unmap_seq: NDArray[np.uint64], detaches: Detaches
    ) -> Rows:
        """Take a batch's maps, unmaps and detaches; the rows that ended, in order of their end.

        Args:
            maps: MAPPING rows of all MAP events, in order.
            unmaps: UNMAP events under the "map" names, in order.
            unmap_seq: their sequence numbers.
            detaches: the attachments that ended in the batch.
        """
        fresh = self._fresh(maps)
        cached = (unmaps["flags"] & Flag.CACHED) != 0
        ends = np.flatnonzero(~cached & (unmaps["mapping"] != 0))
        parts = []
        if len(ends):
            ended, fresh = self._end(fresh, unmaps.take(ends), unmap_seq[ends], detaches)
            parts.append(ended)
        room = MAX_LIVE - len(self.live)
        if len(fresh) > room:
            self.untracked += len(fresh) - room
            fresh = fresh[:room]
        self.live.add(fresh)
        self._share(maps, unmaps.compress(cached))
        if len(detaches.ids):
            parts.append(self._detach(detaches))
        if not parts:
            return np.empty(0, MAPPING)
        ended = join(parts)
        ended = ended.take(np.argsort(ended["end_seq"], kind="stable"))
        self.ended.put(ended)
        return ended

    def _fresh(self, maps: Rows) -> Rows:
        """The rows that begin a mapping, by id; ids already known are left out."""
        begins = (maps["result"] == 0) & (maps["id"] != 0)
        begins &= (maps["flags"] & Flag.CACHED) == 0
        # A cached table from before the trace: its map was not seen, it lives all the same.
        shared = (maps["result"] == 0) & ((maps["flags"] & Flag.CACHED) != 0)
        if bool(np.any(shared)):
            first = np.zeros(len(maps), np.bool_)
            first[np.flatnonzero(shared)] = self.live.find(maps["id"][shared]) < 0
            begins |= first
        fresh: Rows = maps.compress(begins)
        ids, first_of = np.unique(fresh["id"], return_index=True)
        fresh = fresh.take(first_of)
        known = self.live.find(ids) >= 0
        if bool(np.any(known)):
            fresh = fresh.compress(~known)
        old = (fresh["flags"] & Flag.CACHED) != 0
        fresh["flags"][old] |= np.uint16(Flag.PREEXISTING)
        made_outside = (fresh["flags"] & (Flag.IN_ATTACH | Flag.CACHED)) != 0
        fresh["users"] = np.where(made_outside, 0, 1)
        return fresh

    def _end(
        self, fresh: Rows, unmaps: Events, seq: NDArray[np.uint64], detaches: Detaches
    ) -> tuple[Rows, Rows]:
        """Match unmaps with fresh and live rows: the rows that ended, the fresh ones left."""
        ids, first = np.unique(unmaps["mapping"], return_index=True)
        unmaps, seq = unmaps.take(first), seq[first]
        if len(fresh):
            inside = np.minimum(np.searchsorted(fresh["id"], ids), len(fresh) - 1)
            is_fresh = fresh["id"][inside] == ids
        else:
            inside, is_fresh = np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        at_live = self.live.find(ids)
        at_live[is_fresh] = -1
        is_live = at_live >= 0
        known = is_fresh | is_live
        rows = np.zeros(len(ids), MAPPING)
        put(rows, is_fresh, fresh.take(inside[is_fresh]))
        put(rows, is_live, self.live.rows.take(at_live[is_live]))
        if len(detaches.ids):
            # A detach before the unmap ended it already.
            place = detaches.place(rows["attachment"])
            known &= ~((place >= 0) & (detaches.seq[place] < seq))
        rows, unmaps, seq = rows.compress(known), unmaps.compress(known), seq[known]
        rows["end"] = End.UNMAP
        rows["end_tid"] = unmaps["tid"]
        rows["end_ns"] = unmaps["ts_ns"]
        rows["end_seq"] = seq
        rows["end_stack"] = unmaps["stack"]
        rows["users"] = 0
        gone = at_live[known & is_live]
        left = np.ones(len(fresh), np.bool_)
        left[inside[known & is_fresh]] = False
        fresh = fresh.compress(left)
        self.live.remove(gone)
        return rows, fresh

    def _share(self, maps: Rows, unmaps: Events) -> None:
        """Count the users of cached tables, and keep where the first one was given back."""
        shared = maps["id"][(maps["result"] == 0) & ((maps["flags"] & Flag.CACHED) != 0)]
        for ids, step in ((shared, 1), (unmaps["mapping"], -1)):
            if len(ids):
                position = self.live.find(ids)
                np.add.at(self.live.rows["users"], position[position >= 0], step)
        first = unmaps.compress(unmaps["stack"] >= 0)
        if len(first):
            position = self.live.find(first["mapping"])
            known = position >= 0
            self.live.rows["end_stack"][position[known]] = first["stack"][known]

    def _detach(self, detaches: Detaches) -> Rows:
        """End what still lives of detached attachments."""
        rows = self.live.rows
        place = detaches.place(rows["attachment"])
        hit = self.live.alive & (place >= 0)
        hit &= detaches.seq[place] > rows["seq"]
        position = np.flatnonzero(hit)
        place = place[position]
        ended: Rows = rows.take(position)
        ended["end"] = detaches.end[place]
        ended["end_tid"] = detaches.tid[place]
        ended["end_ns"] = detaches.ts_ns[place]
        ended["end_seq"] = detaches.seq[place]
        self.live.remove(position)
        return ended
