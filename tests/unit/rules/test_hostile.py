# SPDX-License-Identifier: GPL-2.0-or-later
"""Records that no probe would write end in findings at most, never in an exception."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dmabuf_tool.render.findings import finding_objects
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import EVENT, SEGMENT, TABLE, Batch, Kind, view

SMALL = ("buffer", "attachment", "mapping", "device", "domain")


def garbage(seed: int, count: int, ids: int) -> Batch:
    """Events of random bytes, with ids small enough to meet, and chunks of random claims."""
    rng = np.random.default_rng(seed)
    events = np.frombuffer(rng.bytes(EVENT.itemsize * count), EVENT).copy()
    events["kind"] = rng.integers(0, max(Kind) + 4, count)
    for field in SMALL:
        events[field] = rng.integers(0, ids, count)
    events["tgid"] = rng.integers(0, 4, count)
    events["ts_ns"] = np.sort(rng.integers(0, 1 << 63, count, dtype=np.uint64))
    some = rng.random(count) < 0.7
    events["result"][some] = 0
    events["flags"][some] &= rng.integers(0, 1 << 16, int(some.sum())).astype(np.uint16)
    maps = view(events, "map")
    maps["nents"][some] = rng.integers(0, 9, int(some.sum()))
    tables = np.frombuffer(rng.bytes(TABLE.itemsize * 30), TABLE).copy()
    tables["mapping"] = rng.integers(0, ids, 30)
    tables["first"] = rng.integers(0, 4, 30)
    tables["count"][:25] = rng.integers(0, 9, 25)
    tables["offset"][:25] = rng.integers(0, 60, 25)
    segments = np.frombuffer(rng.bytes(SEGMENT.itemsize * 64), SEGMENT).copy()
    stacks = {number: ("\x1b[2J+0x1 [evil\n]", "") for number in range(-2, 3)}
    return Batch(events, tables, segments, stacks)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 200), st.sampled_from((2, 6, 1 << 32)))
def test_garbage(seed: int, count: int, ids: int) -> None:
    engine = Engine()
    with np.errstate(all="ignore"):
        for number in range(3):
            engine.feed(garbage(seed + number, count, ids))
            engine.model.process_exits([(1, 5), (2, 1 << 62)])
            json.dumps(finding_objects(engine.findings(), engine.model))
