# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of a real kernel through the product's rings: all of them, in order, losses counted."""

from __future__ import annotations

import os
import threading

import native
import numpy as np
import pytest

from dmabuf_tool.probes import maps
from dmabuf_tool.probes.ring import RECORD, EventRing
from dmabuf_tool.probes.session import Session
from dmabuf_tool.schema import EVENT, Kind, Losses, view

SIZE = 1 << 16


@pytest.fixture
def loaded(one_cpu):
    found = native.load(SIZE)
    yield found
    found.close()


@pytest.fixture
def ring(loaded):
    found = EventRing(loaded.maps["events"], SIZE)
    yield found
    found.close()


def lost(loaded):
    return maps.counters(loaded.maps["stats"], 5)[native.LOST_EVENTS]


def numbers(events):
    return view(events, "buf")["ino"].tolist()


def test_events_say_who_and_when(ring):
    native.send(3)
    events = ring.read()
    assert events["kind"].tolist() == [Kind.EXPORT] * 3
    assert events["tgid"].tolist() == [os.getpid()] * 3
    assert events["tid"].tolist() == [threading.get_native_id()] * 3
    assert numbers(events) == [1, 2, 3]
    assert (np.diff(events["ts_ns"].astype(np.int64)) >= 0).all()
    assert len(ring.read()) == 0


def test_the_ring_wraps_many_times(ring, loaded):
    got = []
    for _ in range(200):
        native.send(61)
        got += numbers(ring.read())
    assert got == list(range(1, 200 * 61 + 1))
    assert len(got) * RECORD.itemsize > 20 * SIZE
    assert lost(loaded) == 0


def test_losses_are_counted_to_the_event(ring, loaded):
    room = SIZE // RECORD.itemsize
    sent = 5 * room
    native.send(sent)
    first = numbers(ring.read())
    # The oldest are kept: what came when the ring was full is lost.
    assert first == list(range(1, len(first) + 1))
    assert room - 1 <= len(first) <= room
    assert lost(loaded) == sent - len(first)
    native.send(10)
    assert numbers(ring.read()) == list(range(sent + 1, sent + 11))
    assert lost(loaded) == sent - len(first)


def test_a_session_gives_batches(loaded):
    session = Session(loaded, native.options(SIZE))
    session.start()
    native.send(100)
    batch = session.finish()
    assert batch is not None
    assert numbers(batch.events) == list(range(1, 101))
    assert batch.losses == Losses()
    assert session.read() is None
    session.close()


def test_a_session_says_what_it_lost(loaded, monkeypatch):
    # A backlog that may hold nothing: the drain thread leaves the ring as it is.
    monkeypatch.setattr("dmabuf_tool.probes.session._BACKLOG_BYTES", 0)
    session = Session(loaded, native.options(SIZE))
    session.start()
    native.send(2000)
    monkeypatch.undo()
    batch = session.finish()
    assert batch is not None
    assert len(batch.events) < 2000
    assert batch.losses == Losses(events=2000 - len(batch.events))
    session.close()


def test_threads_on_all_processors(until):
    """Records of several producers lie side by side; unfinished ones end a read, not the order."""
    loaded = native.load(SIZE << 6)
    ring = EventRing(loaded.maps["events"], SIZE << 6)
    each = 4000
    threads = [threading.Thread(target=native.send, args=(each,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []

    def drained():
        events = ring.read()
        seen.append(events.copy())
        return not any(t.is_alive() for t in threads) and not len(events)

    until(drained)
    events = np.concatenate(seen)
    assert len(events) + lost(loaded) == 4 * (
        each // native.MOST * native.MOST + each % native.MOST
    )
    for tid in np.unique(events["tid"]):
        mine = events["ts_ns"][events["tid"] == tid].astype(np.int64)
        assert (np.diff(mine) >= 0).all()
    ring.close()
    loaded.close()


@pytest.mark.parametrize("fails", ["make", "run"])
def test_a_kernel_that_names_no_stacks(loaded, monkeypatch, fails):
    """The trace goes on, and says how many have no names, and why."""
    if fails == "make":
        monkeypatch.setattr("dmabuf_tool.probes.namer._ONLY_READ", 0)  # no constant: refused
    session = Session(loaded, native.options(SIZE))
    if fails == "run":
        session._namer.close()
        session._namer._program._program = loaded.maps["events"]  # no program
    monkeypatch.setattr("dmabuf_tool.probes.maps.stack", lambda *_: [1, 2, 3])
    loaded.maps.setdefault("stacks", os.open(os.devnull, os.O_RDONLY))
    events = np.zeros(3, EVENT)
    events["stack"] = [-1, 5, 7]
    assert session._stacks(events) == {5: ("?",), 7: ("?",)}
    assert session.nameless == 2
    assert session.naming_problem.startswith("cannot ")
    session._namer = None
    session.close()
