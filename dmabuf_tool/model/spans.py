# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-1 mappings by their addresses: those that live and those that ended a short while ago.

A span is the life of a mapping from its MAP to its end. Its addresses stand in `Intervals`: its
DMA addresses in the space of the device's domain, or in the space of all devices without
translation (0), and its pages in the space of physical addresses. Questions come with a place in
the stream, and a span is there for them from its first sequence number to its last: what a batch
holds in all is added before the questions are asked, and the answers do not depend on its cuts.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.intervals import U32, U64, Hits, Intervals, join_hits
from dmabuf_tool.model.objects import NEVER
from dmabuf_tool.model.store import Rows, Store
from dmabuf_tool.schema import PAGE_UNKNOWN, Events, Flag, Kind

REMEMBERED_NS: Final = 12_000_000_000
"""How long an ended mapping is remembered: a fault may be told 10 s after the unmap."""
_FORGET_NS: Final = 15_000_000_000
"""When it is dropped: later, so that no answer depends on when that was done."""
_LOOK_NS: Final = 1_000_000_000
"""How often it is looked for what can be dropped: all spans are."""
MAX_SEGMENTS: Final = 1 << 22
"""Ranges kept; beyond it mappings are not found by address."""

DIRECT: Final = 0
"""The space of DMA addresses of devices without translation."""

SPAN: Final = np.dtype(
    [
        ("id", "<u4"),
        ("attachment", "<u4"),
        ("buffer", "<u4"),
        ("device", "<u4"),
        ("site", "<u4"),
        ("space", "<u4"),  # domain its DMA addresses are in, DIRECT for none
        ("tgid", "<u4"),
        ("end_tgid", "<u4"),
        ("seq", "<u8"),
        ("end_seq", "<u8"),  # NEVER while it lives
        ("ts_ns", "<u8"),
        ("end_ns", "<u8"),
        ("size", "<u8"),  # of the buffer
        ("address", "<u8"),  # DMA address of the first entry
        ("digest", "<u8"),  # of its pages in order, 0 if not all are known
        ("entries", "<u4"),
        ("pageless", "<u4"),  # entries without a page
        ("direction", "u1"),
        ("old", "?"),  # from before the trace
    ]
)


class Spans:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.store = Store(SPAN)
        self.dma: dict[int, Intervals] = {}
        self.pages = Intervals()
        self.untracked = 0
        self._segments = 0
        self._next_ns = 0
        self._forgotten = 0
        self._by_attachment: dict[int, list[int]] = {}
        self._unlisted: list[tuple[U32, U32]] = []
        """Ids and attachments of spans not in `_by_attachment` yet: few traces ask for them."""

    def add(self, calls: Rows, tables: Rows, segments: Rows, translated: NDArray[Any]) -> Rows:
        """Take a batch's MAP rows and chunks; returns the spans that began, by id.

        `translated` (sites,) says where DMA addresses are a domain's.
        """
        good = (calls["result"] == 0) & (calls["id"] != 0)
        rows = calls.compress(good)
        if not len(rows):
            return np.empty(0, SPAN)
        _, first = np.unique(rows["id"], return_index=True)
        rows = rows.take(first)
        rows = rows.compress(self.store.find(rows["id"]) < 0)
        spans = np.zeros(len(rows), SPAN)
        for name in ("id", "attachment", "buffer", "device", "site", "tgid", "seq", "ts_ns",
                     "size", "address", "entries", "pageless", "direction"):  # fmt: skip
            spans[name] = rows[name]
        spans["space"] = np.where(translated[rows["site"]], rows["domain"], DIRECT)
        spans["end_seq"] = NEVER
        spans["old"] = (rows["flags"] & 0x0005) != 0  # preexisting, or a table cached before
        if len(tables) and len(spans):
            self._add_addresses(spans, rows["nents"], rows["orig_nents"], tables, segments)
        self.store.add(spans)
        self._unlisted.append((spans["id"].copy(), spans["attachment"].copy()))
        return spans

    def end(self, ended: Rows, unmaps: Events, events: Events) -> None:
        """Take a batch's ended mappings."""
        position = self.store.find(ended["id"])
        known = position >= 0
        rows = self.store.rows
        rows["end_seq"][position[known]] = ended["end_seq"][known]
        rows["end_ns"][position[known]] = ended["end_ns"][known]
        # Who ended it: the caller of the detach, or of the unmap.
        detaches = events.compress(events["kind"] == Kind.DETACH)
        if len(detaches) and bool(np.any(known)):
            numbers, first = np.unique(detaches["attachment"], return_index=True)
            wanted = ended["attachment"][known]
            place = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
            mine = numbers[place] == wanted
            at = position[known][mine]
            rows["end_tgid"][at] = detaches["tgid"][first[place[mine]]]
        position = self.store.find(unmaps["mapping"])
        known = (position >= 0) & ((unmaps["flags"] & Flag.CACHED) == 0)
        rows["end_tgid"][position[known]] = unmaps["tgid"][known]

    def row(self, number: int) -> np.void | None:
        """The span of a mapping, None if it is not known any more."""
        position = self.store.position(number)
        if position < 0:
            return None
        found: np.void = self.store.rows[position]
        return found

    def of_attachment(self, attachment: int, seq: int) -> int:
        """The newest mapping of an attachment that lives at a place of the stream, 0 for none."""
        for ids, attachments in self._unlisted:
            known = self.store.find(ids) >= 0
            pairs = zip(ids[known].tolist(), attachments[known].tolist(), strict=True)
            for number, of in pairs:
                self._by_attachment.setdefault(of, []).append(number)
        self._unlisted = []
        for number in reversed(self._by_attachment.get(attachment, ())):
            row = self.row(number)
            if row is not None and row["seq"] < seq < row["end_seq"]:
                return number
        return 0

    def find(self, low: U64, high: U64, source: int) -> Hits:
        """Ranges that meet low..high: of DMA addresses in any space (0), or of pages (1)."""
        if source:
            return self.pages.find(low, high)
        return join_hits([space.find(low, high) for space in self.dma.values()])

    def in_space(self, space: int) -> Intervals:
        """The DMA addresses of one space."""
        return self.dma.setdefault(space, Intervals())

    def _add_addresses(
        self, spans: Rows, nents: U32, orig_nents: U32, tables: Rows, segments: Rows
    ) -> None:
        entries, row, number = _entries(tables, segments, spans["id"])
        room = MAX_SEGMENTS - self._segments
        if len(entries) > room:
            self.untracked += len(np.unique(row[room:]))
            entries, row, number = entries[:room], row[:room], number[:room]
        used = (number < nents[row]) & (entries["dma_length"] > 0)
        dma = _runs(
            row[used], entries["dma_address"][used].astype(np.uint64),
            entries["dma_length"][used].astype(np.uint64),
        )  # fmt: skip
        for space in np.unique(spans["space"][dma.row]).tolist():
            mine = spans["space"][dma.row] == space
            self.in_space(space).add(
                dma.start[mine], dma.end[mine], spans["id"][dma.row[mine]], dma.offset[mine]
            )
        used = (number < orig_nents[row]) & (entries["page"] < PAGE_UNKNOWN)
        used &= entries["length"] > 0
        pages = _runs(
            row[used], entries["page"][used] + entries["offset"][used],
            entries["length"][used].astype(np.uint64),
        )  # fmt: skip
        self.pages.add(pages.start, pages.end, spans["id"][pages.row], pages.offset)
        self._segments += len(dma.row) + len(pages.row)
        spans["digest"] = _digests(pages, spans["size"])

    def forget(self, now_ns: int, linked: U32) -> None:
        """Drop what ended long before a time no question will go behind, but for the linked."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + _LOOK_NS
        rows = self.store.rows
        old = self.store.alive & (rows["end_seq"] != NEVER)
        old &= rows["end_ns"] + np.uint64(_FORGET_NS) < now_ns
        if len(linked):
            old &= ~np.isin(rows["id"], linked)
        position = np.flatnonzero(old)
        if not len(position):
            return
        if self._by_attachment:
            self._unlist(rows["attachment"][position].tolist(), rows["id"][position].tolist())
        self._forgotten += len(position)
        self.store.remove(position)
        if self._forgotten > 1024 and self._forgotten > len(self.store):
            self._forgotten = 0
            for space in (*self.dma.values(), self.pages):
                space.keep(lambda owner: self.store.find(owner) >= 0)
            known = [(self.store.find(ids) >= 0, ids, of) for ids, of in self._unlisted]
            self._unlisted = [(ids[at], of[at]) for at, ids, of in known if bool(at.any())]
            self._segments = sum(map(len, (*self.dma.values(), self.pages)))

    def _unlist(self, attachments: list[int], numbers: list[int]) -> None:
        for attachment, number in zip(attachments, numbers, strict=True):
            left = self._by_attachment.get(attachment, [])
            if number in left:
                left.remove(number)
                if not left:
                    del self._by_attachment[attachment]


class _Runs:
    """Stretches of entries of one mapping that follow each other without a gap."""

    __slots__ = ("end", "offset", "row", "start")

    def __init__(self, row: NDArray[np.intp], start: U64, end: U64, offset: U64) -> None:
        self.row, self.start, self.end, self.offset = row, start, end, offset


def _entries(
    tables: Rows, segments: Rows, ids: U32
) -> tuple[Rows, NDArray[np.intp], NDArray[np.int64]]:
    """The entries of these mappings (sorted ids), each with its mapping's row and its number.

    What comes behind a lost chunk is left out: its place in the buffer is not known.
    """
    place = np.minimum(np.searchsorted(ids, tables["mapping"]), len(ids) - 1)
    wanted = ids[place] == tables["mapping"]
    tables, place = tables.compress(wanted), place[wanted]
    order = np.lexsort((tables["first"], place))
    tables, place = tables.take(order), place[order]
    count = tables["count"].astype(np.int64)
    before = np.cumsum(count) - count
    within = np.arange(int(count.sum())) - np.repeat(before, count)
    entries = segments.take(np.repeat(tables["offset"].astype(np.int64), count) + within)
    row = np.repeat(place, count)
    number = np.repeat(tables["first"].astype(np.int64), count) + within
    begins = np.searchsorted(row, row, side="left")
    sound = number == np.arange(len(row)) - begins
    if bool(np.all(sound)):
        return entries, row, number
    return entries.compress(sound), row[sound], number[sound]


def _runs(row: NDArray[np.intp], address: U64, length: U64) -> _Runs:
    """Merge neighbours; `row` is sorted."""
    if not len(row):
        empty = np.empty(0, np.uint64)
        return _Runs(row, empty, empty, empty)
    behind = np.cumsum(length, dtype=np.uint64)
    offset = behind - length
    end = address + length
    first = np.concatenate([[True], row[1:] != row[:-1]])
    breaks = np.flatnonzero(first | np.concatenate([[True], address[1:] != end[:-1]]))
    last = np.append(breaks[1:], len(row)) - 1
    # Offsets count from the mapping's first entry.
    base = offset[np.maximum.accumulate(np.where(first, np.arange(len(row)), 0))]
    return _Runs(row[breaks], address[breaks], end[last], (offset - base)[breaks])


def _digests(pages: _Runs, sizes: U64) -> U64:
    """A number for each mapping's pages in their order; 0 where they do not make up the buffer."""
    out = np.zeros(len(sizes), np.uint64)
    total = np.zeros(len(sizes), np.uint64)
    if len(pages.row):
        one, two = np.uint64(0x9E37_79B9_7F4A_7C15), np.uint64(0xC2B2_AE3D_27D4_EB4F)
        mixed = (pages.start * one) ^ (pages.offset * two) ^ (pages.end << np.uint64(7))
        mixed ^= mixed >> np.uint64(29)
        mixed *= two
        begins = np.flatnonzero(np.concatenate([[True], pages.row[1:] != pages.row[:-1]]))
        out[pages.row[begins]] = np.add.reduceat(mixed, begins)
        total[pages.row[begins]] = np.add.reduceat(pages.end - pages.start, begins)
    return np.where((total == sizes) & (sizes != 0), out, np.uint64(0))
