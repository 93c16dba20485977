# SPDX-License-Identifier: GPL-2.0-or-later
"""Gathered batches are the same stream."""

import numpy as np
from batches import Trace, pages
from test_cuts import random_trace, state

from dmabuf_tool.model import gather as module
from dmabuf_tool.schema import Losses


def test_gathered_stream_is_the_same(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "EVENTS", 25)
    for seed in range(5):
        trace = random_trace(seed)
        cut = trace.batches(range(0, len(trace), 7))
        together = list(module.gather(cut))
        assert 1 < len(together) < len(cut)
        assert state(together) == state(cut)


def test_chunks_stay_with_their_entries_and_losses_are_the_last() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    for number in range(3):
        trace.map(attachment, pages(2, start=number << 20))
    trace.losses = Losses(events=4)
    (one,) = module.gather(trace.batches(range(len(trace))))
    assert one.losses == Losses(events=4)
    first = one.segments["dma_address"][one.tables["offset"].astype(np.intp)]
    assert first.tolist() == [0, 1 << 20, 2 << 20]
    assert not list(module.gather([]))
