# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic in private domains: what comes of it at once (bulk.py) and one by one (level2.py)."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from batches import Trace
from two_levels import IOVA, PAGE, VA, fault, free, map_pages, private, put, take, translated

from dmabuf_tool.model import bulk
from dmabuf_tool.model.removed import Removals
from dmabuf_tool.rules.engine import Engine

PAGES = 8
PHYSICAL = 1 << 32
STEPS = 700


def traffic(seed: int, wild: float) -> Trace:
    """Maps and unmaps of whole buffers, some in several calls; `wild` of them are anything else."""
    rng = random.Random(seed)
    trace = Trace()
    devices = [translated(trace), translated(trace, "0000:00:06.0", group=2)]
    domains = [private(trace, device) for device in devices] + [private(trace, devices[0])]
    mapped = {}
    for number in range(12):
        device = devices[number % 2]
        attachment = trace.attach(trace.export(PAGES * PAGE), device)
        start = IOVA + number * PAGES * PAGE
        mapped[number] = (attachment, map_level1(trace, attachment, number, start), start, device)
    there: dict[tuple[int, int], int] = {}
    for _ in range(STEPS):
        which = rng.randrange(3)
        domain, slot = domains[which], rng.randrange(24)
        where = VA + slot * PAGES * PAGE
        if not domain:
            continue
        if rng.random() < wild / 400:
            free(trace, domain)
            domains[which] = 0
        elif rng.random() < wild:
            anything(rng, trace, domain, mapped, devices)
        elif (domain, slot) in there:
            del there[domain, slot]
            take(trace, domain, where, PAGES * PAGE)
        elif mapped:
            number = rng.choice([n for n in mapped if mapped[n][3] is devices[which % 2]] or [0])
            if number not in mapped:
                continue
            there[domain, slot] = number
            source = rng.choice([mapped[number][2], PHYSICAL + number * PAGES * PAGE])
            parts = rng.choice([1, 2, 4])
            size = PAGES * PAGE // parts
            for part in range(parts):
                put(trace, domain, where + part * size, source + part * size, size)
        trace.wait(rng.choice([0, 0, 1]))
    return trace


def map_level1(trace, attachment, number, start):
    page = PHYSICAL + number * PAGES * PAGE
    return map_pages(trace, attachment, [(start, PAGES * PAGE)], page)


def anything(rng, trace, domain, mapped, devices) -> None:
    where = VA + rng.randrange(24 * PAGES) * PAGE
    size = rng.choice([1, 3, PAGES, 3 * PAGES]) * PAGE
    target = rng.choice([IOVA, PHYSICAL, 1 << 40]) + rng.randrange(12 * PAGES) * PAGE
    what = rng.randrange(8)
    if what < 3:
        put(trace, domain, where, target, size, result=rng.choice([0, 0, -12]))
    elif what < 6:
        take(trace, domain, where, size, done=rng.choice([None, None, 0, PAGE]))
    elif what == 6 and len(mapped) > 4:
        attachment, level1, _, _ = mapped.pop(rng.choice(list(mapped)))
        trace.unmap(level1)
        if rng.random() < 0.5:
            trace.detach(attachment)
            trace.release(attachment.buffer)
    elif what == 7 and rng.random() < 0.1:
        fault(trace, devices[0], where)


def outcome(trace: Trace, cuts: list[int]) -> dict:
    engine = Engine()
    hazards = Counter()
    for batch in trace.batches(cuts):
        step = engine.feed(batch)
        for one in step.hazards:
            context = one.context.id if one.context else 0
            numbers = tuple(sorted(one.numbers.items(), key=str))
            hazards[one.what, one.ts_ns, context, one.buffer, one.severe, one.detail, numbers] += 1
    engine.model.sweep()
    live = engine.model.registry.attachments.keys()
    levels = engine.model.levels
    removed = sorted(row[:-4] for row in levels.removed.rows().tolist())
    return {
        "contexts": [
            (c.id, c.tgid, c.device, c.mapped, c.bytes, c.live_bytes, c.other_bytes, c.other_seq,
             [(one.start, one.end, one.buffer, one.attachment, one.mapping, one.offset,
               one.source, one.device, one.tgid, one.ts_ns, one.seq) for one in c.ranges])
            for c in levels.contexts.all()
        ],
        "usage": {
            key: (u.count, u.bytes, u.first_ns, u.last_ns, u.nested, u.nested_bytes, u.buffers,
                  u.worst and (u.worst.start, u.worst.end, u.worst.seq))
            for key, u in levels.usage.items()
        },
        "on": (levels.on, levels.of, levels.stale),
        "ranges": len(levels.ranges),
        "removed": removed,
        "bound": engine.model.registry.undone.in_contexts & live,
        "hazards": hazards,
        "findings": [(f.rule.id, f.told.title, f.count) for f in engine.findings()],
    }  # fmt: skip


WILD = (0.0, 0.02, 0.1, 0.4)


@pytest.mark.parametrize("wild", WILD)
def test_one_by_one_is_as_if_each_came_alone(wild, monkeypatch):
    trace = traffic(0, wild)
    alone = outcome(trace, list(range(len(trace))))
    assert alone["usage"]
    monkeypatch.setattr(bulk, "_FEW", len(trace) + 1)
    assert outcome(trace, []) == alone


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("seed", range(4))
def test_at_once_and_one_by_one(seed, wild, monkeypatch):
    trace = traffic(seed, wild)
    monkeypatch.setattr(bulk, "_FEW", len(trace) + 1)
    one_by_one = outcome(trace, [])
    assert one_by_one["usage"]
    for few in (0, 16):
        monkeypatch.setattr(bulk, "_FEW", few)
        for cuts in ([], random.Random(seed).sample(range(len(trace)), 5)):
            found = outcome(trace, sorted(cuts))
            for name, value in one_by_one.items():
                assert found[name] == value, (name, few, cuts)


def test_most_is_done_at_once(monkeypatch):
    left = []
    take_ = bulk.Bulk.take

    def counted(self, work, released, *, careful):
        found = take_(self, work, released, careful=careful)
        left.append((np.count_nonzero(found.maps), np.count_nonzero(found.cuts), len(work.rows)))
        return found

    monkeypatch.setattr(bulk.Bulk, "take", counted)
    outcome(traffic(1, 0.0), [])
    assert sum(rows for *_, rows in left) > 300
    assert sum(maps + cuts for maps, cuts, _ in left) == 0


def test_the_last_removals_are_kept_in_order():
    from dmabuf_tool.model import removed

    removals = Removals()
    wanted = []
    for number in range(0, 3 * removed.REMEMBERED, 40_000):
        rows = np.zeros(40_000, removed.REMOVED)
        rows["seq"] = rows["ended_ns"] = np.arange(number, number + 40_000)
        wanted += rows["seq"].tolist()
        before = removals.count
        removals.put(rows)
        removals.flush()
        assert removals.since(before)["seq"].tolist() == wanted[-40_000:]
        assert removals.rows()["seq"].tolist() == wanted[-removed.REMEMBERED :]
        assert removals.holding(0)["seq"].tolist() == wanted[-removed.REMEMBERED :]
        assert len(removals.holding(1)) == 0
    assert next(removals.newest(1)).range.seq == wanted[-1]
