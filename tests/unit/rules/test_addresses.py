# SPDX-License-Identifier: GPL-2.0-or-later
"""address-beyond-limit and segment-too-long: one byte decides."""

from typing import Any

import pytest
from batches import Entries, Trace
from raised import findings, one

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.schema import SG_DMA_BUS_ADDRESS, Flag

LIMIT = 0xFFFF_FFFF


def mapped(entries: Entries, **device: Any) -> Trace:
    trace = Trace()
    attachment = trace.attach(trace.export(1 << 20), trace.device(**device))
    trace.map(attachment, entries)
    return trace


def test_last_byte_decides() -> None:
    assert not findings(mapped([(LIMIT - 4095, 4096)]), "address-beyond-limit")
    found = one(mapped([(0x1000, 4096), (LIMIT - 4095, 4097)]), "address-beyond-limit")
    assert found.severity is Severity.ERROR
    assert found.told.evidence["last_address"] == LIMIT + 1
    assert found.told.evidence["beyond_bytes"] == 1


def test_bus_limit_below_the_mask() -> None:
    entries = [(0x3FFF_F000, 8192)]
    assert not findings(mapped(entries), "address-beyond-limit")
    found = one(mapped(entries, bus_dma_limit=0x3FFF_FFFF), "address-beyond-limit")
    assert found.told.evidence["limit"] == 0x3FFF_FFFF


def test_zero_is_no_limit_and_no_mask_is_none_either() -> None:
    entries = [(1 << 40, 4096)]
    assert not findings(mapped(entries, dma_mask=0, bus_dma_limit=0), "address-beyond-limit")


def test_masks_of_other_devices_do_not_count() -> None:
    trace = Trace()
    buffer = trace.export()
    trace.attach(buffer, trace.device("narrow", dma_mask=0xFFFF))
    wide = trace.attach(buffer, trace.device("wide", dma_mask=(1 << 64) - 1))
    trace.map(wide, [(1 << 40, 4096)])
    assert not findings(trace, "address-beyond-limit")


def test_limits_are_those_of_the_attach() -> None:
    trace = Trace()
    buffer, device = trace.export(), trace.device(dma_mask=0xFFFF_FFFF)
    old = trace.attach(buffer, device)
    device.dma_mask = (1 << 64) - 1
    new = trace.attach(buffer, device)
    trace.map(new, [(1 << 40, 4096)])
    assert not findings(trace, "address-beyond-limit")
    trace.map(old, [(1 << 40, 4096)])
    assert one(trace, "address-beyond-limit").told.evidence["dma_mask"] == 0xFFFF_FFFF


def test_bus_addresses_are_not_the_masks_business() -> None:
    trace = mapped([(1 << 40, 4096, SG_DMA_BUS_ADDRESS)])
    assert not findings(trace, "address-beyond-limit")


def test_a_cause_is_told_once_with_its_worst_case() -> None:
    trace = Trace()
    device = trace.device()
    for number in range(3):
        attachment = trace.attach(trace.export(), device)
        trace.map(attachment, [(LIMIT + number, 4096)])
    found = one(trace, "address-beyond-limit")
    assert found.count == 3
    assert found.buffers == {1, 2, 3}
    assert found.told.evidence["last_address"] == LIMIT + 2 + 4095
    assert found.subject.buffer is not None and found.subject.buffer.id == 3


@pytest.mark.parametrize(
    ("limits", "severity"),
    [
        ({"max_segment_size": 8192}, Severity.WARNING),
        ({"max_segment_size": 65536, "bus": "platform"}, Severity.WARNING),
        ({"max_segment_size": 65536}, Severity.INFO),
        ({"max_segment_size": 0, "bus": "platform"}, Severity.INFO),
        ({"max_segment_size": 8192, "flags": Flag.HAS_MASK}, Severity.INFO),
    ],
)
def test_segment_size_declared_and_default(limits: dict[str, Any], severity: Severity) -> None:
    limit = 8192 if severity is Severity.WARNING and limits["max_segment_size"] == 8192 else 65536
    assert not findings(mapped([(0, limit)], **limits), "segment-too-long")
    found = one(mapped([(0, limit + 1)], **limits), "segment-too-long")
    assert found.severity is severity
    assert found.told.evidence["longest_entry"] == limit + 1
    assert found.told.evidence["max_segment_size"] == limit


def test_merged_entries_past_nents_do_not_count() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    mapping = trace.map(attachment, [(0, 4096), (0x100000, 1 << 20)])
    batch = trace.batch()
    batch.events["words"][-1][2] = 1 | (2 << 32)  # nents 1, orig_nents 2
    assert mapping.id == 1
    from dmabuf_tool.model.model import Model

    row = Model().apply(batch).maps[0]
    assert (row["entries"], row["longest_entry"], row["complete"]) == (1, 4096, True)
