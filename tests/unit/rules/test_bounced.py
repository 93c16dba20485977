# SPDX-License-Identifier: GPL-2.0-or-later
"""bounced: by the tracepoint or the entries' flag; how bad it is depends on syncs."""

from batches import Trace
from raised import findings, one

from dmabuf_tool.model.model import SKIP_CPU_SYNC
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.schema import SG_DMA_BUS_ADDRESS, SG_DMA_SWIOTLB

ENTRY = (0x1000, 4096)


def bounced(attrs: int = 0) -> tuple[Trace, object]:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device(dma_mask=0x3FFF_FFFF))
    trace.bounce(attachment, 4096)
    trace.bounce(attachment, 8192)
    mapping = trace.map(attachment, [ENTRY], attrs=attrs)
    return trace, mapping


def test_warning_while_somebody_copies() -> None:
    trace, _ = bounced()
    found = one(trace, "bounced")
    assert found.severity is Severity.WARNING
    assert found.told.evidence["bounces"] == 2
    assert found.told.evidence["bounced_bytes"] == 4096 + 8192
    assert found.count == 1


def test_error_with_skip_cpu_sync() -> None:
    trace, _ = bounced(SKIP_CPU_SYNC)
    found = one(trace, "bounced")
    assert found.severity is Severity.ERROR
    assert "mapped with SKIP_CPU_SYNC" in found.told.title


def test_error_when_mapped_long_and_never_synced() -> None:
    trace, mapping = bounced()
    trace.wait(1000).unmap(mapping)
    found = one(trace, "bounced")
    assert (found.severity, found.count) == (Severity.ERROR, 1)
    assert "never synced" in found.told.title
    trace, mapping = bounced()
    trace.wait(998).unmap(mapping)
    assert one(trace, "bounced").severity is Severity.WARNING


def test_error_while_it_is_still_mapped() -> None:
    trace, _ = bounced()
    trace.wait(1000)
    assert one(trace, "bounced").severity is Severity.ERROR
    trace, mapping = bounced()
    trace.cpu_end(mapping.attachment.buffer)
    trace.wait(1000)
    assert one(trace, "bounced").severity is Severity.WARNING


def test_sync_of_this_buffer_while_mapped_counts() -> None:
    for number, severity in ((1, Severity.WARNING), (2, Severity.ERROR)):
        trace, mapping = bounced()
        other = trace.export()
        trace.wait(500).cpu_end(mapping.attachment.buffer if number == 1 else other)
        trace.wait(500).unmap(mapping)
        assert one(trace, "bounced").severity is severity


def test_flag_of_an_entry() -> None:
    for flag, raised in ((SG_DMA_SWIOTLB, True), (SG_DMA_BUS_ADDRESS, False), (0, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(), trace.device())
        trace.map(attachment, [ENTRY, (*ENTRY, flag)])
        assert bool(findings(trace, "bounced")) is raised


def test_bounce_belongs_to_the_map_that_follows_on_its_attachment() -> None:
    trace = Trace()
    device = trace.device()
    first, second = (trace.attach(trace.export(), device) for _ in range(2))
    trace.map(first, [ENTRY])
    trace.bounce(first, 4096)
    trace.map(second, [ENTRY])
    trace.map(first, [ENTRY])
    found = one(trace, "bounced")
    assert found.count == 1
    assert found.buffers == {1}
