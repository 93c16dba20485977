# SPDX-License-Identifier: GPL-2.0-or-later
"""Each fault of a batch is told with what the model says of it, not of its cause."""

from __future__ import annotations

from batches import Trace
from two_levels import IOVA, PAGE, fault, translated

from dmabuf_tool.render.faults import ATTRIBUTION_KEYS, attributions
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Kind


def test_each_fault_has_its_own_buffer_and_unmap() -> None:
    trace = Trace()
    device = translated(trace)
    mappings = []
    for number in range(2):
        attachment = trace.attach(trace.export(4 * PAGE), device)
        mappings.append(trace.map(attachment, [(IOVA + number * 4 * PAGE, 4 * PAGE)]))
    for mapping in mappings:
        trace.unmap(mapping)
        trace.wait(5)
    fault(trace, device, IOVA + 4 * PAGE)
    # Told after it, but earlier.
    fault(trace, device, IOVA, ago_ms=1)
    fault(trace, device, 0x1000)
    engine, batch = Engine(), trace.batch()
    told = attributions(engine.feed(batch))
    assert list(batch.events["kind"][sorted(told)]) == [Kind.FAULT] * 3
    second, first, never = (told[index] for index in sorted(told))
    assert [one.buffer for one in (first, second, never)] == [1, 2, 0]
    assert [one.device for one in (first, second)] == [device.id] * 2
    assert list(first.members) == list(ATTRIBUTION_KEYS)
    assert [one.members["verdict"] for one in (first, second, never)] == [
        "unmapped", "unmapped", "never mapped",
    ]  # fmt: skip
    since = [one.members["evidence"]["since_unmap_ns"] // 1_000_000 for one in (first, second)]
    assert since == [9, 5]
    assert "unmapped 5" in second.text
    # The finding is one, of one cause.
    (finding,) = [one for one in engine.findings() if one.told.title.startswith("fault at 0xfff0")]
    assert finding.count == 2


def test_a_batch_without_faults_has_none() -> None:
    trace = Trace()
    trace.export(PAGE)
    assert attributions(Engine().feed(trace.batch())) == {}
