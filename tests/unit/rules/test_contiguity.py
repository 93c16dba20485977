# SPDX-License-Identifier: GPL-2.0-or-later
"""not-contiguous: inferred from the importer, proved by what it did, or configured."""

from batches import Trace, pages, runs
from raised import findings, one
from test_refused import VB2, vivid

from dmabuf_tool.model.constraints import Configured
from dmabuf_tool.model.undone import UNDONE_NS
from dmabuf_tool.rules.engine import Engine

MS = 1_000_000


def test_says_longest_run_runs_and_the_size_needed() -> None:
    trace = Trace()
    vivid(trace, 1, (65536,) * 132)
    found = one(trace, "not-contiguous")
    assert found.told.title == (
        "not contiguous: longest run 64.0 KiB of 8.2 MiB in 132 runs; "
        "importer vb2-dma-contig, exporter udmabuf"
    )
    assert found.told.evidence["size_needed"] == 132 * 65536
    assert found.subject.tgid == 312


def test_one_byte_between_two_entries_makes_two_runs() -> None:
    for gap, raised in ((0, False), (1, True)):
        trace = Trace()
        attachment = trace.attach(trace.export(8192), trace.device(), importer=VB2)
        trace.unmap(trace.map(attachment, runs(4096, 4096, gap=gap)))
        assert bool(findings(trace, "not-contiguous")) is raised


def test_entries_in_falling_order_are_not_one_run() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device(), importer=VB2)
    trace.unmap(trace.map(attachment, [(0x5000, 4096), (0x4000, 4096)]))
    assert one(trace, "not-contiguous").told.evidence["runs"] == 2


def test_first_run_that_is_long_enough_is_good() -> None:
    """What follows the size needed does not matter to the importer."""
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device(), importer=VB2)
    trace.unmap(trace.map(attachment, [*pages(2), (0x9000_0000, 4096)]))
    assert not findings(trace, "not-contiguous")


def test_importer_that_keeps_the_table_has_found_it_good() -> None:
    """The plane of a V4L2 buffer may be smaller than the dma-buf."""
    trace = Trace()
    vivid(trace, UNDONE_NS / MS, (65536, 65536))
    assert not findings(trace, "not-contiguous")
    trace = Trace()
    vivid(trace, 1, (65536, 65536), tid=313)
    assert not findings(trace, "not-contiguous")


def test_importer_that_takes_scattered_tables() -> None:
    trace = Trace()
    attachment = trace.attach(
        trace.export(8192), trace.device(), importer="vb2_dma_sg_attach_dmabuf [videobuf2_dma_sg]"
    )
    trace.unmap(trace.map(attachment, runs(4096, 4096)))
    assert not findings(trace, "not-contiguous")


def test_driver_on_the_drm_dma_helpers() -> None:
    trace = Trace()
    device = trace.device("gpu", driver="vc4-drm", bus="platform")
    attachment = trace.attach(trace.export(8192), device, importer="drm_gem_prime_import_dev [drm]")
    trace.unmap(trace.map(attachment, runs(4096, 4096)))
    assert "importer drm-gem-dma" in one(trace, "not-contiguous").told.title


def test_cut_table_tells_nothing_of_its_runs() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(3 * 4096), trace.device(), importer=VB2)
    trace.unmap(trace.map(attachment, runs(4096, 4096, 4096), cap=2))
    assert not findings(trace, "not-contiguous")


def test_configured_devices_are_told_at_the_map() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device())
    trace.map(attachment, runs(4096, 4096))
    engine = Engine(lambda device: Configured(max_segment_count=1))
    engine.feed(trace.batch())
    found = [f for f in engine.findings() if f.rule.id == "not-contiguous"]
    assert [f.told.evidence["source"] for f in found] == ["configured"]
