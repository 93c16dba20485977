# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches put together to a size that numpy is good at.

A batch costs the model and the rules about 2 ms however small it is; the frames of a capture
hold some 4,000 events. Where a stream is cut changes nothing (tests/unit/model/test_cuts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from dmabuf_tool.model.store import join
from dmabuf_tool.schema import Batch

EVENTS: Final = 1 << 14
SEGMENTS: Final = 1 << 18


def gather(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same stream in batches of about EVENTS events or SEGMENTS entries."""
    waiting: list[Batch] = []
    events = segments = 0
    for batch in batches:
        waiting.append(batch)
        events += len(batch.events)
        segments += len(batch.segments)
        if events >= EVENTS or segments >= SEGMENTS:
            yield _one(waiting)
            waiting, events, segments = [], 0, 0
    if waiting:
        yield _one(waiting)


def _one(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    tables = join([batch.tables for batch in batches])
    before = np.cumsum([0, *(len(batch.segments) for batch in batches[:-1])])
    tables["offset"] += np.repeat(before, [len(batch.tables) for batch in batches]).astype("u8")
    return Batch(
        events=join([batch.events for batch in batches]),
        tables=tables,
        segments=join([batch.segments for batch in batches]),
        stacks={key: frames for batch in batches for key, frames in batch.stacks.items()},
        losses=batches[-1].losses,
    )
