# SPDX-License-Identifier: GPL-2.0-or-later
"""What level 2 costs the model: private-domain traffic, and matching among many live segments.

`levels.py` prints one JSON object. Streams are made beforehand, as the probes would send them, and
fed in batches of EVENTS; times are of this process's CPU, the whole of Model.apply().
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "unit"), str(HERE.parents[1])]

from batches import Trace  # noqa: E402 (the path is set above)
from two_levels import map_pages, private, translated  # noqa: E402

from dmabuf_tool.model.model import Model  # noqa: E402
from dmabuf_tool.schema import EVENT, SEGMENT, TABLE, Batch, Kind, view  # noqa: E402

PAGE = 4096
EVENTS = 4096
"""Events of a batch: 20 ms of 100,000 maps and unmaps a second."""
PAIRS = 200_000
BUFFERS, SIZE, CALLS = 512, 16 * PAGE, 4
IOVA, VA, PHYSICAL = 0x1_0000_0000, 0x40_0000_0000, 1 << 44
SEGMENTS, SEGMENTS_A_MAPPING = 1_000_000, 125
QUESTIONS = 50_000


def mapped(count: int, entries: int) -> tuple[Model, int, int]:
    """A model with so many live mappings of so many entries each, scattered, DMA addresses and
    pages; it, a private domain and the time."""
    trace = Trace()
    device = translated(trace)
    domain = private(trace, device)
    step = entries * PAGE * 2
    model, done = Model(), 0
    for number in range(count):
        attachment = trace.attach(trace.export(entries * PAGE), device)
        start = IOVA + number * step
        table = [(start + 2 * PAGE * n, PAGE) for n in range(entries)]
        map_pages(trace, attachment, table, *(address + PHYSICAL for address, _ in table))
        if number % 64 == 63 or number == count - 1:
            model.apply(trace.batch(done))
            done = len(trace)
            trace._chunks.clear()
    return model, domain, trace.now


def calls(kinds: Any, domain: int, iova: Any, paddr: Any, size: Any, now: int) -> Any:
    """IOMMU_MAP and IOMMU_UNMAP events, ten microseconds apart."""
    events = np.zeros(len(kinds), EVENT)
    events["kind"], events["domain"] = kinds, domain
    events["tgid"], events["tid"], events["comm"], events["stack"] = 100, 100, b"app", -1
    events["ts_ns"] = now + 10_000 * np.arange(1, len(kinds) + 1)
    fields = view(events, "iommu")
    fields["iova"], fields["paddr"], fields["calls"] = iova, paddr, 1
    fields["size"] = fields["done"] = size
    return events


def traffic(live: int, now: int, domain: int, pieces: int) -> Any:
    """Pairs of a map (in `pieces` calls) and an unmap; `live` ranges are mapped at any time."""
    pairs = PAIRS // pieces
    number = np.arange(pairs + live)
    buffer = number % BUFFERS
    slot = number % (live + 1)
    rows = np.zeros((pairs + live, pieces + 1), [("kind", "u2"), ("iova", "u8"), ("paddr", "u8"),
                                                 ("size", "u8"), ("used", "?")])  # fmt: skip
    for piece in range(pieces):
        rows["kind"][:, piece] = Kind.IOMMU_MAP
        rows["iova"][:, piece] = VA + slot * SIZE + piece * (SIZE // pieces)
        # One entry a page, a hole behind each: a call maps one entry.
        rows["paddr"][:, piece] = IOVA + buffer * 2 * SIZE + piece * 2 * PAGE
        rows["size"][:, piece] = PAGE
    if pieces > 1:
        rows["iova"][:, :pieces] = (VA + slot * SIZE)[:, None] + PAGE * np.arange(pieces)
    rows["used"][:pairs, :pieces] = True
    ends = rows[:, pieces]
    ends["kind"] = Kind.IOMMU_UNMAP
    ends["iova"][live:] = VA + slot[:pairs] * SIZE
    ends["size"][live:] = pieces * PAGE
    ends["used"][live:] = True
    used = rows.reshape(-1)
    used = used[used["used"]]
    return calls(used["kind"], domain, used["iova"], used["paddr"], used["size"], now)


def feed(model: Model, events: Any) -> float:
    """CPU seconds for a stream."""
    none = np.empty(0, TABLE), np.empty(0, SEGMENT)
    begin = time.process_time()
    for start in range(0, len(events), EVENTS):
        model.apply(Batch(events[start : start + EVENTS], *none))
    return time.process_time() - begin


def pairs() -> dict[str, float]:
    """Microseconds a pair of map and unmap."""
    out = {}
    for name, live, pieces in (("short", 8, 1), ("long", 20_000, 1), ("scattered", 500, 16)):
        model, domain, now = mapped(BUFFERS, SIZE // PAGE)
        events = traffic(live, now, domain, pieces)
        seconds = feed(model, events)
        context = model.levels.contexts.live[domain]
        assert context.mapped == PAIRS // pieces, (name, context.mapped)
        assert len(context.ranges) == 0
        out[name] = seconds / (PAIRS // pieces) * 1e6
    return out


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def segments() -> dict[str, float]:
    """Memory a live segment, and microseconds a map among a million of them."""
    before = resident()
    model, domain, now = mapped(SEGMENTS // SEGMENTS_A_MAPPING, SEGMENTS_A_MAPPING)
    size = resident() - before
    rng = np.random.default_rng(1)
    chosen = rng.integers(0, SEGMENTS // SEGMENTS_A_MAPPING * SEGMENTS_A_MAPPING, QUESTIONS)
    targets = IOVA + chosen.astype(np.uint64) * np.uint64(2 * PAGE)
    places = VA + np.arange(QUESTIONS, dtype=np.uint64) * np.uint64(2 * PAGE)
    events = calls(np.full(QUESTIONS, Kind.IOMMU_MAP), domain, places, targets, PAGE, now)
    seconds = feed(model, events)
    assert len(model.levels.contexts.live[domain].ranges) == QUESTIONS
    return {"bytes": size / SEGMENTS, "match": seconds / QUESTIONS * 1e6}


if __name__ == "__main__":
    print(json.dumps({**segments(), **pairs()}))
