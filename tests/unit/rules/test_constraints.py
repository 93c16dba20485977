# SPDX-License-Identifier: GPL-2.0-or-later
"""Group A: what was handed out against what a device takes."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from batches import BIDIRECTIONAL, FROM_DEVICE, TO_DEVICE, Entries, Trace, pages, runs
from raised import findings, one

from dmabuf_tool.model.constraints import Configured
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import MAX_BUFFERS, Finding, evidence_of
from dmabuf_tool.schema import PAGE_NONE, Flag

VB2 = "vb2_dc_attach_dmabuf [videobuf2_dma_contig]"


def mapped(entries: Entries, size: int | None = None, **device: Any) -> Trace:
    trace = Trace()
    total = sum(entry[1] for entry in entries)
    attachment = trace.attach(trace.export(total if size is None else size), trace.device(**device))
    trace.map(attachment, entries)
    return trace


def configured(trace: Trace, rule: str, **limits: int) -> list[Finding]:
    engine = Engine(lambda device: Configured(**limits))  # type: ignore[arg-type]
    engine.feed(trace.batch())
    return [finding for finding in engine.findings() if finding.rule.id == rule]


def test_too_many_segments() -> None:
    for count, raised in ((16, False), (17, True)):
        trace = mapped(runs(*[4096] * count))
        found = configured(trace, "too-many-segments", max_segment_count=16)
        assert bool(found) is raised
    assert found[0].severity is Severity.WARNING
    assert found[0].told.evidence["runs"] == 17
    assert not findings(trace, "too-many-segments")


def test_too_many_segments_taken_back_is_an_error() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(3 * 4096), trace.device())
    trace.unmap(trace.map(attachment, runs(4096, 4096, 4096)))
    (found,) = configured(trace, "too-many-segments", max_segment_count=2)
    assert (found.severity, found.count) == (Severity.ERROR, 1)
    assert found.told.evidence["undone"]


def test_boundary_crossed_by_one_byte() -> None:
    limits = {"segment_boundary_mask": 0xFFFF}
    assert not findings(mapped([(0x1_0000, 0x1_0000)], **limits), "boundary-crossed")
    found = one(mapped([(0x1000, 4096), (0x1_0000, 0x1_0001)], **limits), "boundary-crossed")
    assert found.severity is Severity.ERROR
    assert found.told.evidence["segment_boundary_mask"] == 0xFFFF


def test_boundary_of_the_pci_core_and_none() -> None:
    crossing = [(0xFFFF_F000, 8192)]
    wide = {"dma_mask": (1 << 64) - 1}
    assert one(mapped(crossing, **wide), "boundary-crossed").severity is Severity.WARNING
    none = {**wide, "segment_boundary_mask": 0}
    assert not findings(mapped(crossing, **none), "boundary-crossed")


def test_misaligned() -> None:
    assert not findings(mapped([(0x1000, 4096)]), "misaligned")
    found = one(mapped([(0x1200, 4096)]), "misaligned")
    assert (found.severity, found.told.evidence["address_bits"]) == (Severity.WARNING, 0x200)
    assert one(mapped([(0x1000, 4095)]), "misaligned").told.evidence["length_bits"] == 4095
    # A declared mask asks that bits are kept, not that they are 0.
    trace = mapped([(0x1000, 4096)], min_align_mask=0xFFFF)
    assert not findings(trace, "misaligned")
    assert configured(trace, "misaligned", min_align_mask=0x1FFF)
    assert not configured(mapped([(0x2000, 4096)]), "misaligned", min_align_mask=0x1FFF)


def mixed(sync: bool, coherent_maps: bool = True, pair: bool = True) -> Trace:
    trace = Trace()
    buffer = trace.export(4096)
    camera = trace.device("cam", flags=Flag.HAS_MASK | Flag.HAS_PARMS)
    first = trace.attach(buffer, camera)
    mapping = trace.map(first, pages(1))
    gpu = trace.attach(buffer, trace.device("gpu") if coherent_maps else camera)
    second = trace.map(gpu, pages(1))
    if pair:
        trace.unmap(second)
    if sync:
        trace.cpu_end(buffer)
    trace.wait(10).unmap(mapping)
    return trace


def test_coherency_mix() -> None:
    found = findings(mixed(sync=False), "coherency-mix")[0]
    assert found.severity is Severity.WARNING
    assert found.subject.device is not None and found.subject.device.name == "cam"
    assert one(mixed(sync=True), "coherency-mix").severity is Severity.INFO
    assert not findings(mixed(sync=False, coherent_maps=False), "coherency-mix")
    # A map that lasts may be an import, used after the other device is done.
    assert one(mixed(sync=False, pair=False), "coherency-mix").severity is Severity.INFO


def test_coherency_mix_needs_maps_that_overlap() -> None:
    trace = Trace()
    buffer = trace.export(4096)
    camera = trace.attach(buffer, trace.device("cam", flags=Flag.HAS_MASK))
    gpu = trace.attach(buffer, trace.device("gpu"))
    for attachment in (camera, gpu, camera):
        trace.unmap(trace.map(attachment, pages(1)))
    assert one(trace, "coherency-mix").severity is Severity.INFO


def test_union_of_two_devices_that_cannot_be_served() -> None:
    for size, raised in ((16 * 8192, False), (16 * 8192 + 4096, True)):
        trace = Trace()
        buffer = trace.export(size)
        trace.attach(buffer, trace.device("short", max_segment_size=8192))
        trace.attach(buffer, trace.device("few"))
        found = configured(trace, "union-unsatisfiable", max_segment_count=16)
        assert bool(found) is raised
    assert found[0].told.evidence["capacity"] == 16 * 8192
    assert found[0].told.evidence["segment_size_of"] == "short"


def test_union_ends_with_a_detach_and_defaults_do_not_limit() -> None:
    trace = Trace()
    buffer = trace.export(1 << 20)
    trace.detach(trace.attach(buffer, trace.device("short", max_segment_size=8192)))
    trace.attach(buffer, trace.device("few", max_segment_size=65536))
    assert len(configured(trace, "union-unsatisfiable", max_segment_count=2)) == 1
    trace = Trace()
    trace.attach(trace.export(1 << 20), trace.device("few"))
    assert not configured(trace, "union-unsatisfiable", max_segment_count=2)


def test_one_run_is_needed_and_pages_are_given() -> None:
    for translated, raised in ((False, True), (True, False)):
        trace = Trace()
        flags = Flag.HAS_MASK | (Flag.TRANSLATED if translated else 0)
        attachment = trace.attach(trace.export(8192), trace.device(flags=flags), importer=VB2)
        trace.unmap(trace.map(attachment, runs(4096, 4096)))
        assert bool(findings(trace, "union-unsatisfiable")) is raised


def late(
    first: int = 1, *, mask: int = 0xFFFF, translated: bool = False, wide: int = 0xFFFF_FFFF
) -> tuple[Trace, Any]:
    trace = Trace()
    buffer = trace.export(4096)
    old = trace.attach(buffer, trace.device("wide", dma_mask=wide))
    if first:
        trace.map(old, pages(1))
    flags = Flag.HAS_MASK | Flag.COHERENT | (Flag.TRANSLATED if translated else 0)
    return trace, trace.attach(buffer, trace.device("narrow", dma_mask=mask, flags=flags))


def test_late_tighter_attach() -> None:
    trace, attachment = late()
    found = one(trace, "late-tighter-attach")
    assert (found.severity, found.told.evidence["tighter"]) == (Severity.INFO, "address limit")
    trace.map_failed(attachment, -errno.EIO)
    found = one(trace, "late-tighter-attach")
    assert found.severity is Severity.WARNING
    assert found.told.evidence["map"] == "failed"
    trace, attachment = late()
    trace.bounce(attachment, 4096)
    trace.map(attachment, pages(1))
    assert one(trace, "late-tighter-attach").severity is Severity.WARNING


def test_attach_that_is_early_or_as_wide() -> None:
    assert not findings(late(first=0)[0], "late-tighter-attach")
    assert not findings(late(mask=0xFFFF_FFFF)[0], "late-tighter-attach")
    assert findings(late(mask=0xFFFF_FFFE)[0], "late-tighter-attach")
    # The mask the kernel gives every device was not declared; a map that bounces is told.
    trace, attachment = late(mask=0xFFFF_FFFF, wide=(1 << 64) - 1)
    assert not findings(trace, "late-tighter-attach")
    trace.bounce(attachment, 4096)
    trace.map(attachment, pages(1))
    assert one(trace, "late-tighter-attach").told.evidence["map"] == "bounced"
    # Behind an IOMMU the mask says nothing of where memory lies.
    assert not findings(late(translated=True)[0], "late-tighter-attach")


def test_a_default_of_the_bus_is_no_tighter_limit() -> None:
    """The PCI core's 64 KiB and 4G-1; the same boundary on another bus was declared."""
    for bus, raised in (("pci", False), ("platform", True)):
        trace = Trace()
        limits = {"max_segment_size": 65536, "segment_boundary_mask": 0xFFFF_FFFF, "bus": bus}
        flags = Flag.HAS_MASK | Flag.HAS_PARMS | Flag.COHERENT
        plain, narrow = trace.device("plain"), trace.device("narrow", flags=flags, **limits)
        for _ in range(3):
            buffer = trace.export(4096)
            trace.map(trace.attach(buffer, plain), pages(1))
            trace.attach(buffer, narrow)
        found = findings(trace, "late-tighter-attach")
        assert len(found) == raised
        assert not raised or found[0].count == 3


@pytest.mark.parametrize(
    ("flags", "raised"),
    [
        (Flag.DYNAMIC | Flag.ALLOW_PEER2PEER, True),
        (Flag.DYNAMIC | Flag.ALLOW_PEER2PEER | Flag.PEER2PEER, False),
        (Flag.DYNAMIC, False),
    ],
)
def test_p2p_downgraded(flags: Flag, raised: bool) -> None:
    trace = Trace()
    trace.attach(trace.export(), trace.device(), flags=flags)
    assert bool(findings(trace, "p2p-downgraded")) is raised


def test_pages_expected() -> None:
    for orig, raised in ((0, True), (1, False)):
        trace = Trace()
        attachment = trace.attach(
            trace.export(4096, "vfio"), trace.device(), importer="tegra_bo_import [tegra_drm]"
        )
        trace.map(attachment, pages(1), orig_nents=orig)
        assert bool(findings(trace, "pages-expected")) is raised
    trace = mapped(pages(1))
    assert not findings(trace, "pages-expected")


def test_pages_hidden_by_a_debug_kernel() -> None:
    trace = Trace()
    attachment = trace.attach(
        trace.export(8192), trace.device(), importer="tegra_bo_import [tegra_drm]"
    )
    trace.map(attachment, pages(2))
    batch = trace.batch()
    for hidden, raised in ((1, False), (2, True)):
        batch.segments["page"][:hidden] = PAGE_NONE
        engine = Engine()
        engine.feed(batch)
        assert ("pages-expected" in {f.rule.id for f in engine.findings()}) is raised


def test_size_mismatch() -> None:
    assert not findings(mapped([(0, 8192)], 8192), "size-mismatch")
    found = one(mapped([(0, 8191)], 8192), "size-mismatch")
    assert (found.severity, found.told.evidence["missing"]) == (Severity.ERROR, 1)
    assert one(mapped([(0, 8193)], 8192), "size-mismatch").severity is Severity.INFO


def test_cut_table_is_not_short() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(3 * 4096), trace.device())
    trace.map(attachment, pages(3), cap=2)
    trace.map(attachment, pages(3), chunk=1, lose_chunk=1)
    assert not findings(trace, "size-mismatch")


def test_undeclared_limits() -> None:
    found = one(mapped(pages(1), flags=Flag.HAS_MASK), "undeclared-limits")
    assert found.severity is Severity.INFO
    assert not findings(mapped(pages(1)), "undeclared-limits")


def test_more_buffers_than_are_counted_are_said_to_be_more() -> None:
    for buffers, key in ((MAX_BUFFERS - 1, "buffers"), (MAX_BUFFERS + 1, "buffers_at_least")):
        trace = Trace()
        device = trace.device(flags=Flag.HAS_MASK)
        for _ in range(buffers):
            trace.map(trace.attach(trace.export(4096), device), pages(1))
        evidence = evidence_of(one(trace, "undeclared-limits"))
        assert evidence[key] == min(buffers, MAX_BUFFERS)
        assert len({"buffers", "buffers_at_least"} & evidence.keys()) == 1


def test_direction_conflict() -> None:
    for second, raised in ((FROM_DEVICE, True), (TO_DEVICE, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(4096), trace.device())
        trace.unmap(trace.map(attachment, pages(1), direction=TO_DEVICE))
        trace.map(attachment, pages(1), direction=second)
        assert bool(findings(trace, "direction-conflict")) is raised


def test_cached_bidirectional_table_serves_all_directions() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(4096), trace.device())
    mapping = trace.map(attachment, pages(1), direction=BIDIRECTIONAL, flags=Flag.IN_ATTACH)
    mapping.direction = TO_DEVICE
    trace.map_again(mapping)
    assert not findings(trace, "direction-conflict")
