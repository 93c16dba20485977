# SPDX-License-Identifier: GPL-2.0-or-later
"""Interval matching, ranges and level 2 against plain models; cuts of a stream change nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from batches import Trace
from hypothesis import given, settings
from hypothesis import strategies as st
from two_levels import (
    PAGE,
    bind,
    fault,
    free,
    map_pages,
    private,
    put,
    switch,
    take,
    translated,
    unbind,
    vm,
)

from dmabuf_tool.model.intervals import Intervals
from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.model.ranges import Range, Ranges
from dmabuf_tool.rules.engine import Engine

U64 = np.uint64


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_intervals_find_what_a_scan_finds(seed):
    rng = np.random.default_rng(seed)
    intervals = Intervals()
    kept = []
    for _ in range(int(rng.integers(1, 6))):
        count = int(rng.integers(1, 40))
        start = rng.integers(0, 1 << 24, count).astype(U64)
        length = (1 << rng.integers(0, 24, count)).astype(U64)
        owner = rng.integers(1, 20, count).astype(np.uint32)
        intervals.add(start, start + length, owner, start)
        kept += list(zip(start.tolist(), (start + length).tolist(), owner.tolist(), strict=True))
    low = rng.integers(0, 1 << 24, 30).astype(U64)
    high = low + rng.integers(1, 1 << 16, 30).astype(U64)
    hits = intervals.find(low, high)
    found = sorted(zip(hits.asked.tolist(), hits.start.tolist(), hits.end.tolist(), strict=True))
    wanted = sorted(
        (index, start, end)
        for index, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        for start, end, _ in kept
        if start < b and end > a
    )
    assert found == wanted
    intervals.keep(lambda owner: owner > 10)
    assert len(intervals) == sum(owner > 10 for *_, owner in kept)
    mine = intervals.of(11)
    assert sorted(mine.start.tolist()) == sorted(s for s, _, owner in kept if owner == 11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(1, 20)), max_size=60))
def test_ranges_are_pages_put_and_taken(steps):
    ranges = Ranges()
    pages: dict[int, tuple[int, int]] = {}
    for number, (is_map, start, count) in enumerate(steps):
        ranges.cut(start, start + count)
        for page in range(start, start + count):
            pages.pop(page, None)
        if is_map:
            ranges.add(Range(1, start, start + count, number, 0, number, 0, 0, 0, 0, 0, 0))
            pages |= {start + i: (number, i) for i in range(count)}
    seen = {
        page: (one.buffer, one.offset + page - one.start)
        for one in ranges
        for page in range(one.start, one.end)
    }
    assert seen == pages
    assert sum(one.size for one in ranges) == len(pages)
    for page in range(85):
        assert (ranges.at(page) is not None) == (page in pages)
    assert [one.start for one in ranges] == sorted(one.start for one in ranges)


def test_a_map_over_two_buffers_is_a_piece_of_each():
    trace = Trace()
    device = translated(trace)
    for index in range(2):
        attachment = trace.attach(trace.export(4 * PAGE), device)
        iova = 0xFFF0_0000 + index * 0x1_0000
        map_pages(trace, attachment, [(iova, 4 * PAGE)], (1 << 32) + index * 4 * PAGE)
    domain = private(trace)
    put(trace, domain, 0x4000_0000, (1 << 32) + 2 * PAGE, 8 * PAGE)
    engine = Engine()
    engine.feed(trace.batch())
    context = engine.model.levels.contexts.live[domain]
    found = [(one.start, one.size, one.buffer, one.offset) for one in context.ranges]
    assert found == [
        (0x4000_0000, 2 * PAGE, 1, 2 * PAGE),
        (0x4000_2000, 4 * PAGE, 2, 0),
    ]
    assert context.other_bytes == 2 * PAGE


def story(seed: int) -> Trace:
    """A trace of everything two levels can do, in random order."""
    rng = random.Random(seed)
    trace = Trace()
    devices = [translated(trace, f"0000:00:0{5 + i}.0", group=i + 1) for i in range(2)]
    direct = trace.device("0000:00:09.0")
    domains = [private(trace, devices[0]), private(trace)]
    vms = [vm(trace, 90, devices[0]), vm(trace, 91, devices[1])]
    buffers, attachments, mappings = [], [], []
    for step in range(160):
        what = rng.randrange(14)
        size = rng.choice([1, 4, 16]) * PAGE
        va = 0x4000_0000 + rng.randrange(32) * PAGE
        if what == 0 or not buffers:
            buffers.append(trace.export(16 * PAGE))
        elif what == 1 or not attachments:
            flags = rng.choice([0, 0x10])
            device = rng.choice([*devices, direct])
            attachments.append(trace.attach(rng.choice(buffers), device, flags=flags))
        elif what in (2, 3) or not mappings:
            iova = 0xFFF0_0000 + rng.randrange(8) * 8 * PAGE
            phys = (1 << 32) + rng.randrange(8) * 8 * PAGE
            chosen = rng.choice(attachments)
            entries = [(iova, 8 * PAGE), (iova + 16 * PAGE, 8 * PAGE)]
            mappings.append(map_pages(trace, chosen, entries, phys, phys + 16 * PAGE))
        elif what == 4:
            trace.unmap(mappings.pop(rng.randrange(len(mappings))))
        elif what == 5:
            gone = attachments.pop(rng.randrange(len(attachments)))
            mappings = [m for m in mappings if m.attachment is not gone]
            trace.detach(gone)
        elif what in (6, 7):
            target = rng.choice([0xFFF0_0000, 1 << 32]) + rng.randrange(64) * PAGE
            put(trace, rng.choice(domains), va, target, size, result=rng.choice([0, 0, 0, -17]))
        elif what == 8:
            take(trace, rng.choice(domains), va, size, done=rng.choice([size, size, PAGE, 0]))
        elif what == 9:
            bind(trace, rng.choice(vms), va, rng.choice(attachments), size, PAGE)
        elif what == 10:
            unbind(trace, rng.choice(vms), va, size)
        elif what == 11:
            to = rng.choice([devices[0].domain, domains[0]])
            switch(trace, devices[0], to, old=domains[0] if to != domains[0] else None)
        elif what == 12:
            trace.invalidate(rng.choice(buffers))
        else:
            fault(trace, rng.choice(devices), rng.choice([va, 0xFFF0_0000]), rng.choice([0, 5]))
        trace.wait(rng.choice([0, 1, 40, 900]))
        if step == 120:
            free(trace, domains[1])
            domains.pop()
            gone_buffer = buffers.pop(0)
            attachments = [a for a in attachments if a.buffer is not gone_buffer]
            mappings = [m for m in mappings if m.attachment.buffer is not gone_buffer]
            trace.release(gone_buffer)
            if not attachments or not buffers:
                break
    return trace


def state(trace: Trace, cuts: list[int]) -> tuple[list, list]:
    engine = Engine()
    for batch in trace.batches(cuts):
        engine.feed(batch)
    engine.model.process_exits([(100, trace.now - 10**9)])
    engine.model.advance(trace.now)
    table = [
        (c.id, c.tgid, c.device, c.mapped, c.bytes, c.other_bytes,
         [(o.start, o.end, o.buffer, o.mapping, o.offset, SOURCES[o.source])
          for o in c.ranges.merged()])
        for c in engine.model.levels.contexts.all()
    ]  # fmt: skip
    found = [
        (f.rule.id, f.told.title, f.severity, f.count, f.first_ns, f.last_ns, sorted(f.buffers),
         sorted(f.told.evidence.items(), key=str))
        for f in engine.findings()
        if f.rule.group == "B"
    ]  # fmt: skip
    return table, found


@pytest.mark.parametrize("seed", range(6))
def test_cuts_change_nothing(seed):
    trace = story(seed)
    whole = state(trace, [])
    assert {rule for rule, *_ in whole[1]} & {"level2-map", "fault-attributed", "stale-level1"}
    rng = random.Random(seed)
    assert state(trace, list(range(len(trace)))) == whole
    for _ in range(3):
        assert state(trace, rng.sample(range(len(trace)), 12)) == whole
