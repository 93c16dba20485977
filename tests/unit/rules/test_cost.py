# SPDX-License-Identifier: GPL-2.0-or-later
"""Group D: what costs time; each threshold is met or missed by one."""

from __future__ import annotations

from typing import Any

import pytest
from batches import MS, Attachment, Trace, pages, runs
from raised import findings, one

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.small_iommu_pages import page_sizes
from dmabuf_tool.schema import DomainType, Flag

SECOND = 1_000_000_000
STRICT = DomainType.PAGING | DomainType.DMA_API


def on_the_second(trace: Trace) -> None:
    """Go on to the beginning of a second."""
    trace.now += SECOND - trace.now % SECOND


def churned(count: int, length: int = 4096, **device: Any) -> tuple[Trace, Attachment]:
    trace = Trace()
    attachment = trace.attach(trace.export(length), trace.device(**device))
    on_the_second(trace)
    for _ in range(count):
        trace.unmap(trace.map(attachment, [(0x100000, length)]))
    return trace, attachment


def test_map_churn() -> None:
    assert not findings(churned(199)[0], "map-churn")
    trace, attachment = churned(200)
    found = one(trace, "map-churn")
    assert (found.severity, found.told.evidence["maps_per_second"]) == (Severity.INFO, 200)
    trace.detach(attachment)
    assert one(trace, "map-churn").count == 1


def test_map_churn_over_two_seconds_is_half_the_rate() -> None:
    trace, attachment = churned(150)
    on_the_second(trace)
    for _ in range(150):
        trace.unmap(trace.map(attachment, pages(1)))
    assert not findings(trace, "map-churn")


def test_thresholds_are_options() -> None:
    engine = Engine(thresholds={"map-churn.per_second": 50})
    engine.feed(churned(50)[0].batch())
    found = {finding.rule.id: finding for finding in engine.findings()}
    assert found["map-churn"].told.evidence["per_second"] == 50


def test_iova_beyond_rcache() -> None:
    flags = Flag.HAS_MASK | Flag.TRANSLATED | Flag.COHERENT
    large = (128 << 10) + 4096
    assert findings(churned(100, large, flags=flags)[0], "iova-beyond-rcache")
    assert not findings(churned(99, large, flags=flags)[0], "iova-beyond-rcache")
    assert not findings(churned(100, 128 << 10, flags=flags)[0], "iova-beyond-rcache")
    assert not findings(churned(100, large)[0], "iova-beyond-rcache")


def test_repeated_cache_maintenance() -> None:
    # The first map has none before it.
    assert findings(churned(101, flags=Flag.HAS_MASK)[0], "repeated-cache-maintenance")
    assert not findings(churned(100, flags=Flag.HAS_MASK)[0], "repeated-cache-maintenance")
    assert not findings(churned(101)[0], "repeated-cache-maintenance")


def test_cache_maintenance_the_cpu_needs() -> None:
    trace = Trace()
    buffer = trace.export(4096)
    attachment = trace.attach(buffer, trace.device(flags=Flag.HAS_MASK))
    for number in range(101):
        if number == 50:
            trace.cpu_end(buffer)
        trace.unmap(trace.map(attachment, pages(1)))
    assert not findings(trace, "repeated-cache-maintenance")


@pytest.mark.parametrize(("count", "gap_ms", "raised"), [(30, 16, True), (29, 16, False),
                                                         (30, 220, False)])  # fmt: skip
def test_reimport_per_frame(count: int, gap_ms: float, raised: bool) -> None:
    trace = Trace()
    buffer, device = trace.export(exporter="vivid"), trace.device("card0")
    for _ in range(count):
        trace.detach(trace.attach(buffer, device))
        trace.wait(gap_ms)
    assert bool(findings(trace, "reimport-per-frame")) is raised
    trace.release(buffer)
    assert bool(findings(trace, "reimport-per-frame")) is raised


@pytest.mark.parametrize(
    ("pairs", "size", "flags", "raised"),
    [
        (30, 1 << 20, Flag.HAS_MASK, True),
        (29, 1 << 20, Flag.HAS_MASK, False),
        (30, (1 << 20) - 4096, Flag.HAS_MASK, False),
        (30, 1 << 20, Flag.HAS_MASK | Flag.COHERENT, False),
    ],
)
def test_whole_buffer_sync(pairs: int, size: int, flags: Flag, raised: bool) -> None:
    trace = Trace()
    buffer = trace.export(size)
    trace.attach(buffer, trace.device(flags=flags))
    on_the_second(trace)
    for _ in range(pairs):
        trace.cpu_begin(buffer)
        trace.cpu_end(buffer)
    assert bool(findings(trace, "whole-buffer-sync")) is raised


def unmapped(count: int, kind: int) -> Trace:
    trace = Trace()
    device = trace.device(domain=trace.domain(kind), flags=Flag.HAS_MASK | Flag.TRANSLATED)
    attachment = trace.attach(trace.export(4096), device)
    on_the_second(trace)
    for _ in range(count):
        trace.now -= 900
        trace.iommu_unmap(attachment, 0xFFFF_F000, 4096)
    return trace


def test_iotlb_sync_storm() -> None:
    found = one(unmapped(1000, STRICT), "iotlb-sync-storm")
    assert found.told.evidence["unmaps_per_second"] == 1000
    assert not findings(unmapped(999, STRICT), "iotlb-sync-storm")
    assert not findings(unmapped(1000, STRICT | DomainType.DMA_FQ), "iotlb-sync-storm")


def test_bounce_cost() -> None:
    for size, raised in ((64 << 20, True), ((64 << 20) - 1, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(4096), trace.device())
        trace.bounce(attachment, size)
        trace.map(attachment, pages(1))
        assert bool(findings(trace, "bounce-cost")) is raised


def test_slow_attach_and_map() -> None:
    for extra, raised in ((0, True), (-1, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(4096), trace.device(), duration_ns=50 * MS + extra)
        trace.map(attachment, pages(1), duration_ns=100 * MS + extra)
        assert bool(findings(trace, "slow-attach")) is raised
        assert bool(findings(trace, "slow-map")) is raised


def test_fragmented() -> None:
    for entries, length, raised in ((16, 4096, True), (15, 4096, False), (16, 65536, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(entries * length), trace.device())
        trace.map(attachment, runs(*[length] * entries))
        assert bool(findings(trace, "fragmented")) is raised


def test_entries_that_lie_side_by_side_are_not_the_memorys_fault() -> None:
    for entries, advised in ((pages(16), True), (runs(*[4096] * 16), False)):
        trace = Trace()
        trace.map(trace.attach(trace.export(16 * 4096), trace.device()), entries)
        assert ("one by one" in one(trace, "fragmented").told.advice) is advised


def merged(count: int, *, declared: bool = False, translated: bool = True) -> Trace:
    trace = Trace()
    flags = Flag.HAS_MASK | Flag.HAS_PARMS | Flag.COHERENT | (Flag.TRANSLATED if translated else 0)
    size = 1 << 20 if declared else 65536
    device = trace.device(flags=flags, max_segment_size=size)
    attachment = trace.attach(trace.export(count * 65536), device)
    trace.map(attachment, pages(count, size=65536))
    return trace


def test_not_merged() -> None:
    assert one(merged(2), "not-merged").told.evidence["runs"] == 1
    assert not findings(merged(1), "not-merged")
    assert not findings(merged(2, declared=True), "not-merged")
    assert not findings(merged(2, translated=False), "not-merged")


@pytest.mark.parametrize(
    ("iova", "paddr", "size", "raised"),
    [
        (0xFFE0_1000, 0x8000_0000, 2 << 20, True),
        (0xFFE0_0000, 0x8000_0000, 2 << 20, False),
        (0xFFE0_1000, 0x8000_0000, (2 << 20) - 4096, False),
        (0xFFE0_2000, 0x8000_1000, (2 << 20) + 4096, False),
        (0xFFE0_2000, 0x8000_1000, (4 << 20), True),
    ],
)
def test_small_iommu_pages(iova: int, paddr: int, size: int, raised: bool) -> None:
    trace = Trace()
    device = trace.device(domain=trace.domain(), flags=Flag.HAS_MASK | Flag.TRANSLATED)
    attachment = trace.attach(trace.export(size), device)
    trace.iommu_map(attachment, iova, size, paddr)
    trace.map(attachment, [(iova, size)])
    found = findings(trace, "small-iommu-pages")
    assert bool(found) is raised
    if raised:
        assert found[0].told.evidence["page_possible"] == 2 << 20
        assert found[0].told.evidence["page_used"] == 4096


def test_page_sizes() -> None:
    assert page_sizes(0x4020_1000) == [4096, 2 << 20, 1 << 30]
