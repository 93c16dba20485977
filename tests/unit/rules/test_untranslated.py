# SPDX-License-Identifier: GPL-2.0-or-later
"""untranslated-address: an error only where it is known what the addresses are."""

from __future__ import annotations

from typing import Any

import pytest
from batches import Entries, Trace
from raised import findings, one
from two_levels import map_pages

from dmabuf_tool.model.memory import Bar, DeviceMemory
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import Finding
from dmabuf_tool.schema import PAGE_NONE, SG_DMA_BUS_ADDRESS, DomainType, Flag, Losses

ADDRESS = 0x40_0000_0000
ID = "untranslated-address"


def translated(
    entries: Entries, page: int = PAGE_NONE, *, enter: bool = False, others: bool = True
) -> Trace:
    """A map for a translated device that enters nothing, while others do."""
    trace = Trace()
    domain = trace.domain(DomainType.PAGING | DomainType.DMA_API)
    flags = Flag.HAS_MASK | Flag.TRANSLATED | Flag.COHERENT
    device = trace.device(domain=domain, flags=flags, dma_mask=(1 << 64) - 1)
    if others:
        good = trace.attach(trace.export(4096), device)
        trace.iommu_map(good, 0xFFFF_F000, 4096)
        trace.map(good, [(0xFFFF_F000, 4096)])
    attachment = trace.attach(trace.export(4096, "nvidia"), device)
    if enter:
        trace.iommu_map(attachment, entries[0][0], 4096)
    map_pages(trace, attachment, entries, page)
    return trace


def found(trace: Trace, *bars: Bar) -> Finding:
    engine = Engine()
    engine.model.memory = DeviceMemory(bars)
    engine.feed(trace.batch())
    (finding,) = [one for one in engine.findings() if one.rule.id == ID]
    return finding


def test_physical_addresses_of_pages() -> None:
    for page, severity in ((ADDRESS, Severity.ERROR), (ADDRESS + 4096, Severity.INFO)):
        finding = one(translated([(ADDRESS, 4096)], page), ID)
        assert finding.severity is severity
        assert finding.subject.buffer is not None and finding.subject.buffer.exporter == "nvidia"
    assert one(translated([(ADDRESS, 4096)], ADDRESS), ID).told.evidence["what"] == "physical"


@pytest.mark.parametrize(
    ("bar", "severity"),
    [
        ((ADDRESS, ADDRESS + 4095), Severity.ERROR),
        ((ADDRESS - 4096, ADDRESS + 4096), Severity.ERROR),
        ((ADDRESS, ADDRESS + 4094), Severity.INFO),
        ((ADDRESS + 1, ADDRESS + 8191), Severity.INFO),
        ((ADDRESS - 4096, ADDRESS - 1), Severity.INFO),
    ],
)
def test_addresses_of_a_bar(bar: tuple[int, int], severity: Severity) -> None:
    other = Bar(0xF000_0000, 0xF000_FFFF, "0000:00:03.0", 0)
    finding = found(translated([(ADDRESS, 4096)]), Bar(*bar, "0000:41:00.0", 1), other)
    assert finding.severity is severity
    known = severity is Severity.ERROR
    assert finding.told.evidence["what"] == ("BAR 1 of 0000:41:00.0" if known else "unknown")


def test_what_may_have_been_entered_before_is_no_alarm() -> None:
    finding = found(translated([(ADDRESS, 4096)]))
    assert finding.severity is Severity.INFO
    assert "were not entered" in finding.told.title
    assert "before the attach" in finding.told.advice


def test_translated_and_bus_addresses() -> None:
    assert not findings(translated([(ADDRESS, 4096)], ADDRESS, enter=True), ID)
    assert not findings(translated([(ADDRESS, 4096, SG_DMA_BUS_ADDRESS)], ADDRESS), ID)


def test_exporter_that_keeps_its_table_enters_it_once() -> None:
    trace = translated([(0xFFFF_E000, 4096)], enter=True)
    device = trace.device("other", domain=1, flags=Flag.HAS_MASK | Flag.TRANSLATED)
    attachment = trace.attach(trace.export(4096, "vivid"), device)
    trace.iommu_map(attachment, 0xFFFF_D000, 4096)
    trace.unmap(trace.map(attachment, [(0xFFFF_D000, 4096)]))
    trace.map(attachment, [(0xFFFF_D000, 4096)])
    assert not findings(trace, ID)


def test_it_needs_a_probe_that_works() -> None:
    assert not findings(translated([(ADDRESS, 4096)], ADDRESS, others=False), ID)
    trace = translated([(ADDRESS, 4096)], ADDRESS)
    trace.losses = Losses(events=1)
    assert not findings(trace, ID)


@pytest.mark.parametrize(
    "devices",
    [
        {},
        {"devices": None},
        {"devices": [1, {}, {"bars": 1}, {"bars": [1, {}, {"number": 0, "start": 2, "end": 1}]}]},
        {"devices": [{"bars": [{"number": 0, "start": "1", "end": 2}]}]},
    ],
)
def test_a_header_without_bars(devices: dict[str, Any]) -> None:
    assert not len(DeviceMemory.of(devices))


def test_bars_of_a_header() -> None:
    bar = {"number": 2, "start": 0x1000, "end": 0x1FFF}
    memory = DeviceMemory.of({"devices": [{"name": "0000:00:03.0", "bars": [bar]}]})
    assert str(memory.find(0x1000, 0x1FFF)) == "BAR 2 of 0000:00:03.0"
    assert memory.find(0xFFF, 0x1FFF) is None and memory.find(0x1FFF, 0x2000) is None
