# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams of events for the tests of the event renderers."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dmabuf_tool import schema
from dmabuf_tool.schema import PAYLOAD_OF, Batch, Flag, Kind, Losses, view

START = 10**12
HOSTILE = b"\x1b]0;pwn\x07\n\xff\xe2\x80\xae"


def event(kind: Kind, at_us: int = 0, **fields: Any) -> np.ndarray[Any, Any]:
    """One event; fields of the header and of the kind's payload by name."""
    rows = np.zeros(1, schema.EVENT)
    rows["kind"], rows["ts_ns"], rows["stack"] = kind, START + at_us * 1000, -1
    rows["comm"], rows["tgid"], rows["tid"] = b"weston", 312, 313
    payload = view(rows, PAYLOAD_OF[kind])
    for name, value in fields.items():
        payload[name] = value
    return rows


def table(mapping: int, lengths: list[int], first: int = 0) -> tuple[Any, Any]:
    """A chunk and its entries, at DMA addresses one after the other."""
    rows = np.zeros(1, schema.TABLE)
    rows["mapping"], rows["first"], rows["count"] = mapping, first, len(lengths)
    rows["total"] = first + len(lengths)
    entries = np.zeros(len(lengths), schema.SEGMENT)
    entries["dma_length"] = lengths
    entries["dma_address"] = 0x1000 * (first + np.arange(len(lengths)))
    return rows, entries


def batch(*events: Any, tables: Any = (), **more: Any) -> Batch:
    """Events and (chunk, entries) pairs as a batch."""
    rows, segments, room = [np.empty(0, schema.TABLE)], [np.empty(0, schema.SEGMENT)], 0
    for row, entries in tables:
        moved = row.copy()
        moved["offset"] = room
        room += len(entries)
        rows.append(moved)
        segments.append(entries)
    together = np.concatenate([np.empty(0, schema.EVENT), *events])
    return Batch(together, np.concatenate(rows), np.concatenate(segments), **more)


STORY = [
    event(Kind.EXPORT, 10, buffer=3, size=4 << 20, ino=41, exporter=b"system", duration_ns=12345),
    event(Kind.NAME_DEVICE, 11, device=2, text=b"0000:00:05.0"),
    event(Kind.NAME_DRIVER, 11, device=2, text=b"edu"),
    event(Kind.DOMAIN, 12, domain=7, type=0x0B, group=4),
    event(
        Kind.DEVICE, 12, device=2, domain=7, attachment=4, dma_mask=0xFFFFFFFF,
        max_segment_size=65536, flags=Flag.HAS_MASK | Flag.COHERENT | Flag.TRANSLATED,
    ),
    event(Kind.NAME_BUFFER, 13, buffer=3, text=HOSTILE),
    event(Kind.ATTACH, 14, buffer=3, attachment=5, device=2, size=4 << 20, ino=41,
          exporter=b"system", duration_ns=850, stack=9, flags=Flag.DYNAMIC),
    event(Kind.IOMMU_MAP, 15, buffer=3, device=2, domain=7, mapping=6, iova=0xFFF00000, size=8192,
          done=8192, flags=Flag.INSIDE),
    event(Kind.MAP, 16, buffer=3, attachment=5, device=2, mapping=6, size=4 << 20, nents=2,
          orig_nents=3, copied=3, address=0xFFF00000, direction=1, duration_ns=3_400_000),
    event(Kind.MAP, 17, buffer=3, attachment=5, device=2, size=4 << 20, direction=2, result=-12,
          dma_errno=-5, duration_ns=1_200_000_000),
    event(Kind.CPU_BEGIN, 18, buffer=3, size=4 << 20, direction=0),
    event(Kind.DEVICE, 19, device=2, domain=7, attachment=4, dma_mask=0xFFFFFFFF,
          max_segment_size=65536, flags=Flag.HAS_MASK | Flag.COHERENT | Flag.TRANSLATED),
    event(Kind.UNMAP, 20, buffer=3, attachment=5, device=2, mapping=6, size=4 << 20, nents=2,
          orig_nents=3, address=0xFFF00000, direction=1),
    event(Kind.DOMAIN_ATTACH, 21, device=2, domain=8, old_domain=7, type=1, group=4),
    event(Kind.IOMMU_UNMAP, 22, domain=8, iova=0x1000, size=8192, done=4096, calls=2),
    event(Kind.DETACH, 23, buffer=3, attachment=5, device=2, size=4 << 20, ino=41),
    event(Kind.RELEASE, 24, buffer=3, size=4 << 20, ino=41, exporter=b"system"),
    event(Kind.RELEASED, 24, buffer=3, size=4 << 20, ino=41, exporter=b"system",
          duration_ns=132_000_000),
    event(Kind.EXPORT, 25, size=1 << 40, exporter=b"udmabuf", result=-22),
]  # fmt: skip
TABLES = [table(6, [4096, 4096]), table(6, [512], first=2)]
STACKS = {9: ("dma_buf_dynamic_attach+0x1f", "evil\x1b[2J+0x2 [edu]")}


def story() -> Batch:
    """A buffer's life in one batch."""
    return batch(*STORY, tables=TABLES, stacks=STACKS)


def cut(whole: Batch, at: list[int]) -> list[Batch]:
    """The same stream in pieces, as far as it reaches: tables and stacks come in the first one,
    losses, which are totals at the end of a batch, in the last."""
    count = len(whole.events)
    places = [0, *sorted(min(place, count) for place in at), count]
    pieces = [
        Batch(whole.events[start:end], whole.tables[:0], whole.segments[:0])
        for start, end in pairwise(places)
    ]
    pieces[0] = replace(
        pieces[0], tables=whole.tables, segments=whole.segments, stacks=whole.stacks
    )
    pieces[-1] = replace(pieces[-1], losses=whole.losses)
    return pieces


@st.composite
def any_batch(draw: st.DrawFn) -> Batch:
    """Bytes that look like events of small ids, kinds known and unknown, and a story between."""
    count = draw(st.integers(0, 12))
    raw = draw(st.binary(min_size=count * 112, max_size=count * 112))
    events = np.frombuffer(raw, schema.EVENT).copy()
    for row in events:
        row["kind"] = draw(st.sampled_from([*Kind, 0, max(Kind) + 1, 65535]))
        if draw(st.booleans()):
            for name in ("buffer", "device", "mapping"):
                row[name] = draw(st.integers(0, 6))
    position = draw(st.integers(0, len(STORY)))
    losses = draw(st.just(Losses()) | st.builds(Losses, st.integers(0, 2**64 - 1)))
    return batch(
        *STORY[:position],
        events,
        *STORY[position:],
        tables=TABLES,
        stacks=STACKS | {1: ("a",)},
        losses=losses,
    )
