# SPDX-License-Identifier: GPL-2.0-or-later
"""Group B: each rule raised by what it is about, and silent at the near miss."""

from __future__ import annotations

import pytest
from batches import FROM_DEVICE, Attachment, Device, Trace
from raised import findings, one
from two_levels import (
    IOVA,
    PAGE,
    VA,
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

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Flag, Kind

SIZE = 4 * PAGE
PHYS = 0x1_0000_0000


class Scene:
    """One buffer on one translated device, mapped, and a private domain of that device."""

    def __init__(self, dynamic: bool = False) -> None:
        self.trace = Trace()
        self.device: Device = translated(self.trace)
        self.buffer = self.trace.export(SIZE)
        flags = Flag.DYNAMIC if dynamic else 0
        self.attachment: Attachment = self.trace.attach(self.buffer, self.device, flags=flags)
        self.mapping = map_pages(self.trace, self.attachment, [(IOVA, SIZE)], PHYS)
        self.domain = private(self.trace)
        self.context = self.domain

    def nested(self) -> Scene:
        put(self.trace, self.domain, VA, IOVA, SIZE)
        return self

    def found(self, rule: str, **more: object) -> list:
        return findings(self.trace, rule, **more)


def test_level2_map_says_where_and_from_what():
    scene = Scene().nested()
    finding = one(scene.trace, "level2-map")
    assert finding.severity is Severity.INFO
    assert finding.told.evidence["source"] == "dma-address"
    assert finding.told.evidence["address"] == VA
    assert finding.subject.domain == scene.domain


def test_level2_map_of_nobodys_memory():
    scene = Scene()
    put(scene.trace, scene.domain, VA, IOVA - 64 * SIZE)
    assert scene.found("level2-map") == []


def test_nested():
    assert one(Scene().nested().trace, "nested").told.evidence["ranges"] == 1


def test_from_pages_is_not_nested():
    scene = Scene()
    put(scene.trace, scene.domain, VA, PHYS, SIZE)
    assert scene.found("nested") == []
    finding = one(scene.trace, "level1-bypassed")
    assert finding.severity is Severity.INFO


def test_from_dma_addresses_bypasses_nothing():
    assert Scene().nested().found("level1-bypassed") == []


def test_direct_mapping_is_a_dma_address_and_not_nested():
    trace = Trace()
    device = trace.device()
    attachment = trace.attach(trace.export(SIZE), device)
    map_pages(trace, attachment, [(PHYS, SIZE)], PHYS)
    put(trace, private(trace), VA, PHYS, SIZE)
    assert one(trace, "level2-map").told.evidence["source"] == "dma-address"
    assert findings(trace, "nested") == []


@pytest.mark.parametrize("still", [True, False])
def test_stale_level1(still):
    scene = Scene().nested()
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(30)
    if not still:
        take(scene.trace, scene.domain, VA, SIZE)
    finding = one(scene.trace, "stale-level1")
    assert finding.severity is Severity.ERROR
    assert finding.told.evidence["stale_ns"] >= 30_000_000


def test_level2_ended_first():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA, SIZE)
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(500)
    assert scene.found("stale-level1") == []


def test_level2_ended_within_the_grace_time():
    scene = Scene().nested()
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(10)
    free(scene.trace, scene.domain)
    scene.trace.wait(500)
    assert scene.found("stale-level1") == []


def test_stale_pages_are_a_warning():
    scene = Scene()
    put(scene.trace, scene.domain, VA, PHYS, SIZE)
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(30)
    assert one(scene.trace, "stale-level1").severity is Severity.WARNING


def test_domain_switched_while_mapped():
    scene = Scene()
    switch(scene.trace, scene.device, scene.domain)
    finding = one(scene.trace, "domain-switched-while-mapped")
    assert finding.told.evidence["mappings"] == 1
    assert finding.told.evidence["dma_address"] == IOVA


def test_domain_switched_after_unmap():
    scene = Scene()
    scene.trace.unmap(scene.mapping)
    switch(scene.trace, scene.device, scene.domain)
    assert scene.found("domain-switched-while-mapped") == []


def test_switch_back_is_no_loss():
    scene = Scene()
    scene.trace.unmap(scene.mapping)
    switch(scene.trace, scene.device, scene.domain)
    switch(scene.trace, scene.device, scene.device.domain, scene.domain)
    assert scene.found("domain-switched-while-mapped") == []


@pytest.mark.parametrize(
    ("unmap", "words"),
    [
        ({"flags": Flag.ELSEWHERE}, "another attachment"),
        ({"direction": FROM_DEVICE}, "another direction"),
    ],
)
def test_unmap_elsewhere(unmap, words):
    scene = Scene()
    scene.trace.unmap(scene.mapping, **unmap)
    assert words in one(scene.trace, "unmap-elsewhere").told.title


def test_unmap_while_in_another_domain():
    scene = Scene()
    switch(scene.trace, scene.device, scene.domain)
    scene.trace.unmap(scene.mapping)
    assert "another domain" in one(scene.trace, "unmap-elsewhere").told.title


def test_unmap_back_in_the_domain_of_the_map():
    scene = Scene()
    switch(scene.trace, scene.device, scene.domain)
    switch(scene.trace, scene.device, scene.device.domain, scene.domain)
    scene.trace.unmap(scene.mapping)
    assert scene.found("unmap-elsewhere") == []


def test_unmap_of_nothing_in_a_private_domain():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA + SIZE, SIZE, done=0)
    assert "where nothing is mapped" in one(scene.trace, "unmap-elsewhere").told.title


def test_unmap_of_a_table_never_mapped_of_an_old_attachment():
    scene = Scene()
    scene.mapping.id = 0
    scene.trace.unmap(scene.mapping, flags=Flag.UNKNOWN_TABLE | Flag.PREEXISTING)
    assert scene.found("unmap-elsewhere") == []


def test_attachment_mapped_twice():
    scene = Scene()
    scene.trace.map(scene.attachment, [(IOVA - SIZE, SIZE)])
    finding = one(scene.trace, "mapped-twice")
    assert finding.severity is Severity.WARNING
    assert finding.told.evidence["live"] == 2


def test_mapped_again_after_unmap():
    scene = Scene()
    scene.trace.unmap(scene.mapping)
    scene.trace.map(scene.attachment, [(IOVA, SIZE)])
    assert scene.found("mapped-twice") == []


def test_two_attachments_mapped():
    scene = Scene()
    scene.trace.map(scene.trace.attach(scene.buffer, scene.device), [(IOVA - SIZE, SIZE)])
    assert scene.found("mapped-twice") == []


@pytest.mark.parametrize(("result", "severity"), [(0, Severity.ERROR), (-17, Severity.WARNING)])
def test_address_bound_twice(result, severity):
    scene = Scene()
    other = scene.trace.attach(scene.trace.export(SIZE), scene.device)
    scene.trace.map(other, [(IOVA - SIZE, SIZE)])
    context = vm(scene.trace, 99, scene.device)
    bind(scene.trace, context, VA, scene.attachment, SIZE)
    bind(scene.trace, context, VA + PAGE, other, PAGE, result=result)
    assert one(scene.trace, "mapped-twice").severity is severity


def test_bound_again_to_the_same():
    scene = Scene()
    context = vm(scene.trace, 99, scene.device)
    for _ in range(2):
        bind(scene.trace, context, VA, scene.attachment, SIZE)
    assert scene.found("mapped-twice") == []


@pytest.mark.parametrize("many", [1, 40])
def test_range_of_a_private_domain_mapped_over_itself(many):
    scene = Scene()
    for number in range(2 * many):
        put(scene.trace, scene.domain, VA + number % many * SIZE, IOVA, SIZE)
    finding = one(scene.trace, "mapped-twice")
    assert (finding.severity, finding.count) == (Severity.WARNING, many)
    assert finding.told.title.endswith("mapped again over itself")
    assert [finding.told.evidence[key] for key in ("address", "size")] == [VA, SIZE]


def test_range_of_a_private_domain_mapped_again_after_unmap():
    scene = Scene()
    for _ in range(2):
        put(scene.trace, scene.domain, VA, IOVA, SIZE)
        take(scene.trace, scene.domain, VA, SIZE)
    assert scene.found("mapped-twice") == []


def test_other_pages_of_the_buffer_in_a_private_domain():
    scene = Scene()
    put(scene.trace, scene.domain, VA, IOVA, PAGE)
    put(scene.trace, scene.domain, VA, IOVA + PAGE, PAGE)
    assert one(scene.trace, "mapped-twice").severity is Severity.ERROR


def let_go(scene: Scene) -> None:
    scene.trace.unmap(scene.mapping)
    scene.trace.detach(scene.attachment)
    scene.trace.release(scene.buffer)


def test_level2_outlives_buffer():
    scene = Scene().nested()
    let_go(scene)
    finding = one(scene.trace, "level2-outlives-buffer")
    assert finding.told.evidence["bytes"] == SIZE
    assert finding.buffers == {scene.buffer.id}


def test_level2_ended_before_the_release():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA, SIZE)
    let_go(scene)
    assert scene.found("level2-outlives-buffer") == []


def reuse(scene: Scene, iova: int) -> None:
    fresh = scene.trace.export(SIZE)
    scene.trace.map(scene.trace.attach(fresh, scene.device), [(iova, PAGE)])


def test_iova_reused_under_level2():
    scene = Scene().nested()
    scene.trace.unmap(scene.mapping)
    reuse(scene, IOVA + PAGE)
    finding = one(scene.trace, "iova-reused-under-level2")
    assert finding.told.evidence["dma_address"] == IOVA + PAGE
    assert finding.told.evidence["address"] == VA + PAGE
    assert finding.told.evidence["old_buffer"] == scene.buffer.id
    assert finding.buffers == {2}


def test_iova_reused_elsewhere_or_after_level2():
    scene = Scene().nested()
    scene.trace.unmap(scene.mapping)
    reuse(scene, IOVA - SIZE)
    take(scene.trace, scene.domain, VA, SIZE)
    reuse(scene, IOVA)
    assert scene.found("iova-reused-under-level2") == []


def test_partial_unmap():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA, SIZE, done=PAGE)
    assert one(scene.trace, "partial-unmap").told.evidence["unmapped"] == PAGE


def test_part_unmapped_as_asked():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA + PAGE, PAGE)
    assert scene.found("partial-unmap") == []


@pytest.mark.parametrize(("ms", "severity"), [(1500, Severity.WARNING), (6000, Severity.ERROR)])
@pytest.mark.parametrize("ends", [True, False])
def test_revoke_not_honoured(ms, severity, ends):
    scene = Scene(dynamic=True)
    scene.trace.invalidate(scene.buffer)
    scene.trace.wait(ms)
    if ends:
        scene.trace.unmap(scene.mapping)
    assert one(scene.trace, "revoke-not-honoured").severity is severity


def test_revoke_honoured():
    scene = Scene(dynamic=True)
    scene.trace.invalidate(scene.buffer)
    scene.trace.wait(5)
    scene.trace.unmap(scene.mapping)
    scene.trace.map(scene.attachment, [(IOVA, SIZE)])
    scene.trace.wait(9000)
    assert scene.found("revoke-not-honoured") == []


def test_static_importer_is_not_asked():
    scene = Scene()
    scene.trace.invalidate(scene.buffer)
    scene.trace.wait(9000)
    assert scene.found("revoke-not-honoured") == []


def second(scene: Scene, phys: int) -> None:
    other = scene.trace.attach(scene.buffer, scene.device)
    map_pages(scene.trace, other, [(IOVA - SIZE, SIZE)], phys)


def test_moved_without_notice():
    scene = Scene()
    second(scene, PHYS + 64 * SIZE)
    finding = one(scene.trace, "moved-without-notice")
    assert finding.told.evidence["old_dma_address"] == IOVA


def test_same_pages_told_or_unmapped_is_no_move():
    scene = Scene()
    second(scene, PHYS)
    assert scene.found("moved-without-notice") == []
    told = Scene(dynamic=True)
    told.trace.invalidate(told.buffer)
    second(told, PHYS + 64 * SIZE)
    assert told.found("moved-without-notice") == []
    gone = Scene()
    gone.trace.unmap(gone.mapping)
    second(gone, PHYS + 64 * SIZE)
    assert gone.found("moved-without-notice") == []


def test_same_pages_in_other_entries_are_the_same():
    scene = Scene()
    other = scene.trace.attach(scene.buffer, scene.device)
    halves = [(IOVA - SIZE, SIZE // 2), (IOVA - SIZE // 2, SIZE // 2)]
    map_pages(scene.trace, other, halves, PHYS, PHYS + SIZE // 2)
    assert scene.found("moved-without-notice") == []


def test_context_leak():
    scene = Scene().nested()
    exited = scene.trace.now
    scene.trace.wait(2000)
    finding = one(scene.trace, "context-leak", exits=[(100, exited)])
    assert "app (pid 100)" in finding.told.title


def test_context_freed_empty_or_of_the_living():
    scene = Scene().nested()
    take(scene.trace, scene.domain, VA, SIZE)
    exited = scene.trace.now
    scene.trace.wait(2000)
    assert scene.found("context-leak", exits=[(100, exited)]) == []
    assert Scene().nested().found("context-leak", exits=[(7, exited)]) == []


def test_fault_after_unmap_names_buffer_time_and_process():
    scene = Scene()
    scene.trace.run_as(312, "app")
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(3.1)
    fault(scene.trace, scene.device, IOVA + PAGE)
    finding = one(scene.trace, "fault-attributed")
    assert finding.told.title == (
        f"fault at {IOVA + PAGE:#x} (read): belonged to buffer ino 41, unmapped 3.1 ms before by "
        "app (pid 312)"
    )
    assert finding.subject.buffer is not None
    assert finding.told.evidence["offset"] == PAGE


def test_fault_told_late_sees_its_own_time():
    scene = Scene()
    scene.trace.wait(10)
    scene.trace.unmap(scene.mapping)
    fault(scene.trace, scene.device, IOVA, ago_ms=5)
    assert "is mapped there" in one(scene.trace, "fault-attributed").told.title


def test_fault_ten_seconds_after_the_unmap_while_much_goes_on():
    scene = Scene()
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(9_900)
    reuse(scene, IOVA - SIZE)
    fault(scene.trace, scene.device, IOVA)
    assert "unmapped 9900" in one(scene.trace, "fault-attributed").told.title


def test_a_flood_of_faults_is_counted_and_a_hundred_a_second_are_looked_up():
    scene = Scene()
    scene.trace.unmap(scene.mapping)
    scene.trace.wait(1000 - scene.trace.now // 1_000_000 % 1000)
    for _ in range(150):
        fault(scene.trace, scene.device, IOVA)
    found = scene.found("fault-attributed")
    counts = {one.told.title.partition(": ")[2][:10]: one.count for one in found}
    assert counts == {"belonged t": 100, "not looked": 50}
    scene.trace.wait(1000)
    fault(scene.trace, scene.device, IOVA)
    assert sorted(one.count for one in scene.found("fault-attributed")) == [50, 101]


def test_fault_of_another_device():
    scene = Scene()
    other = translated(scene.trace, "0000:00:06.0", group=2)
    scene.trace.limits(other)
    fault(scene.trace, other, IOVA)
    assert "mapped for 0000:00:05.0" in one(scene.trace, "fault-attributed").told.title


def test_fault_never_mapped():
    scene = Scene()
    fault(scene.trace, scene.device, 0x1000)
    assert "no dma-buf" in one(scene.trace, "fault-attributed").told.title


def test_a_device_is_not_named_before_it_is_told_of():
    """However the stream is cut: what a trace did not know at the fault, a report does not."""
    trace = Trace()
    trace.event(Kind.FAULT, address=0x1000, provider=1, owner=0x29)
    known = trace.device("0000:00:05.0")
    trace.wait(100).event(Kind.FAULT, address=0x1000, provider=1, owner=0x29)
    for cuts in ((), range(len(trace))):
        engine = Engine()
        for batch in trace.batches(cuts):
            engine.feed(batch)
        found = [f for f in engine.findings() if f.rule.id == "fault-attributed"]
        assert [(f.subject.device and f.subject.device.id, f.count) for f in found] == [
            (None, 1),
            (known.id, 1),
        ]


def test_fault_in_a_private_domain():
    scene = Scene().nested()
    switch(scene.trace, scene.device, scene.domain)
    take(scene.trace, scene.domain, VA, PAGE)
    scene.trace.wait(2)
    fault(scene.trace, scene.device, VA)
    finding = one(scene.trace, "fault-attributed")
    assert f"in private domain {scene.domain}, unmapped 2.0 ms before" in finding.told.title


def test_fault_at_a_level1_address_after_a_switch():
    scene = Scene()
    switch(scene.trace, scene.device, scene.domain)
    fault(scene.trace, scene.device, IOVA)
    assert "but the device is in private domain" in one(scene.trace, "fault-attributed").told.title


def test_gpu_vm_hole():
    scene = Scene()
    context = vm(scene.trace, 99, scene.device)
    bind(scene.trace, context, VA, scene.attachment, SIZE)
    unbind(scene.trace, context, VA + PAGE)
    assert one(scene.trace, "level2-map").told.evidence["source"] == "dma-address"
    assert scene.found("stale-level1") == []
