# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose address a map in a private domain points to, where several devices have the same one."""

from __future__ import annotations

import pytest
from batches import Trace
from two_levels import IOVA, PAGE, VA, map_pages, private, put, switch, translated

from dmabuf_tool.render import levels
from dmabuf_tool.rules.engine import Engine

SIZE = 4 * PAGE
PHYSICAL = 1 << 32
NAMES = ("0000:00:05.0", "0000:00:06.0")


def two_devices(trace: Trace) -> list:
    """Two devices that mapped a buffer each at the same IOVA."""
    devices = [translated(trace, name, group=n + 1) for n, name in enumerate(NAMES)]
    for index, device in enumerate(devices):
        attachment = trace.attach(trace.export(SIZE), device)
        map_pages(trace, attachment, [(IOVA, SIZE)], PHYSICAL + index * SIZE)
    return devices


def table(trace: Trace, cuts: tuple[int, ...] = ()) -> list[tuple]:
    engine = Engine()
    for batch in trace.batches(list(cuts)):
        engine.feed(batch)
    return [
        (row["device"], row["ino"], row["source"], row["level1"] is not None, row["nested"])
        for row in levels.two_level(engine.model)
        if row["level2"]
    ]


@pytest.mark.parametrize("whose", [0, 1])
def test_an_iova_is_the_contexts_own_devices(whose):
    trace = Trace()
    devices = two_devices(trace)
    domain = private(trace, devices[whose])
    put(trace, domain, VA, IOVA, SIZE)
    (row,) = table(trace)
    assert row[0] == NAMES[whose]
    assert row[2:] == ("dma-address", True, True)


def test_an_iova_of_another_device_is_nobodys():
    trace = Trace()
    device, other = translated(trace), translated(trace, NAMES[1], group=2)
    trace.map(trace.attach(trace.export(SIZE), other), [(IOVA, SIZE)])
    domain = private(trace, device)
    put(trace, domain, VA, IOVA, SIZE)
    assert table(trace) == []


def test_devices_of_a_group_share_a_space():
    trace = Trace()
    device, other = translated(trace), translated(trace, "0000:00:05.1")
    trace.map(trace.attach(trace.export(SIZE), other), [(IOVA, SIZE)])
    domain = private(trace, device)
    trace.attach(trace.export(SIZE), device)
    put(trace, domain, VA, IOVA, SIZE)
    assert [row[0] for row in table(trace)] == ["0000:00:05.1"]


def test_several_devices_address_in_nobodys_context_is_nobodys():
    trace = Trace()
    two_devices(trace)
    domain = private(trace)
    put(trace, domain, VA, IOVA, SIZE)
    assert table(trace) == []


def test_a_context_is_the_device_whose_address_came_first():
    trace = Trace()
    devices = two_devices(trace)
    alone = trace.attach(trace.export(SIZE), devices[1])
    trace.map(alone, [(IOVA - SIZE, SIZE)])
    domain = private(trace)
    put(trace, domain, VA, IOVA - SIZE, SIZE)
    put(trace, domain, VA + SIZE, IOVA, SIZE)
    whole = table(trace)
    assert [row[0] for row in whole] == [NAMES[1]] * 2
    assert table(trace, tuple(range(len(trace)))) == whole


def test_a_device_without_iommu_that_mapped_too_tells_whose_pages_these_are():
    trace = Trace()
    device, direct = translated(trace), trace.device("platform.0")
    buffer = trace.export(SIZE)
    map_pages(trace, trace.attach(buffer, direct), [(PHYSICAL, SIZE)], PHYSICAL)
    domain = private(trace)
    switch(trace, device, domain)
    put(trace, domain, VA, PHYSICAL, SIZE)
    assert table(trace) == [(NAMES[0], buffer.ino, "pages", False, False)]
