# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace leaves in the model."""

from batches import Trace, pages

from dmabuf_tool.model.constraints import NO_LIMIT, Limits, Source, effective
from dmabuf_tool.model.frameworks import UNKNOWN, framework_of, importer_of
from dmabuf_tool.model.mappings import End
from dmabuf_tool.model.model import Model
from dmabuf_tool.schema import Flag, Kind


def applied(trace: Trace) -> Model:
    model = Model()
    model.apply(trace.batch())
    model.sweep()
    return model


def test_counters_of_buffer_device_attachment_and_process() -> None:
    trace = Trace().run_as(312, "cam")
    buffer, device = trace.export(8192, "system", ino=41, name="frame"), trace.device("cam0")
    attachment = trace.attach(buffer, device)
    mapping = trace.map(attachment, pages(2))
    trace.map_failed(attachment, -12)
    trace.cpu_begin(buffer)
    trace.invalidate(buffer)
    trace.pin(attachment)
    model = applied(trace)
    registry = model.registry
    known = registry.buffers[buffer.id]
    assert (known.name, known.ino, known.exporter, known.tgid) == ("frame", 41, "system", 312)
    assert known.devices == {device.id} and known.processes == {312}
    counts = registry.counts_of(buffer.id)
    assert counts is not None
    assert counts[["maps", "failed_maps", "bytes", "cpu_accesses", "invalidates"]].item() == (
        1, 1, 8192, 1, 1,
    )  # fmt: skip
    assert registry.attachment_counts.live()["pins"].tolist() == [1]
    assert registry.device_counts.live()["bytes"].tolist() == [8192]
    assert model.processes.counts.live()["maps"].tolist() == [1]
    assert model.live_mappings()["id"].tolist() == [mapping.id]


def test_end_of_a_mapping_by_unmap_detach_and_cached_detach() -> None:
    for how, end in (("unmap", End.UNMAP), ("detach", End.DETACH), ("cached", End.DETACH_CACHED)):
        trace = Trace()
        attachment = trace.attach(trace.export(), trace.device())
        mapping = trace.map(attachment, pages(1))
        if how == "unmap":
            trace.unmap(mapping)
        if how == "cached":
            trace.unmap(mapping, flags=Flag.CACHED)
        trace.detach(attachment, flags=Flag.IN_ATTACH if how == "cached" else 0)
        model = applied(trace)
        assert not len(model.live_mappings())
        assert model.mappings.ended.rows["end"].tolist() == [end]
        assert not model.registry.attachments


def test_cached_tables_count_their_users() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    mapping = trace.map(attachment, pages(1))
    trace.map_again(mapping)
    trace.unmap(mapping, flags=Flag.CACHED)
    model = applied(trace)
    assert model.live_mappings()["users"].tolist() == [1]
    assert model.registry.device_counts.live()["maps"].tolist() == [2]
    assert model.registry.device_counts.live()["bytes"].tolist() == [4096]


def test_map_made_inside_attach_has_no_user() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    trace.map(attachment, pages(1), flags=Flag.IN_ATTACH, cap=0)
    rows = applied(trace).live_mappings()
    assert rows["users"].tolist() == [0]
    assert not rows["complete"].any()


def test_release_ends_what_lost_detaches_left() -> None:
    trace = Trace()
    buffer = trace.export()
    trace.map(trace.attach(buffer, trace.device()), pages(1))
    trace.release(buffer)
    model = applied(trace)
    assert not model.registry.attachments and not model.registry.buffers
    assert model.mappings.ended.rows["end"].tolist() == [End.RELEASE]
    assert model.registry.ended_buffers[1].released_ns


def test_memory_is_bounded_by_what_lives() -> None:
    model = Model()
    trace = Trace()
    device = trace.device()
    model.apply(trace.batch())
    for _ in range(40):
        start = len(trace)
        for _ in range(150):
            buffer = trace.export()
            attachment = trace.attach(buffer, device)
            trace.unmap(trace.map(attachment, pages(1)))
            trace.detach(attachment)
            trace.release(buffer)
        model.apply(trace.batch(start))
    model.sweep()
    registry = model.registry
    assert registry.released == 6000
    assert len(registry.ended_buffers) == 4096
    assert len(registry._ended_counts) == 4096
    assert not registry.buffers and not len(registry.buffer_counts)
    assert len(registry.buffer_counts.rows) < 2048
    assert len(registry.sites) == 2
    assert registry.counts_of(6000) is not None and registry.counts_of(1) is None


def test_old_objects_are_marked() -> None:
    trace = Trace()
    buffer = trace.old_buffer()
    trace.old_attachment(buffer, trace.device())
    model = applied(trace)
    assert model.registry.buffers[buffer.id].preexisting
    assert model.registry.attachment_counts.live()["preexisting"].tolist() == [True]


def test_hostile_records_do_no_harm() -> None:
    trace = Trace()
    trace.event(Kind.MAP, mapping=0xFFFF_FFFF, attachment=0xFFFF_FFFF, nents=0xFFFF_FFFF)
    trace.event(Kind.MAP, mapping=0xFFFF_FFFF, size=(1 << 64) - 1, direction=0xFFFF_FFFF)
    trace.event(Kind.UNMAP, mapping=0xFFFF_FFFE)
    trace.event(Kind.DETACH, attachment=0xFFFF_FFFF)
    trace.event(Kind.RELEASE, buffer=77)
    trace.event(Kind.NAME_DEVICE, device=9, text=b"\xff\x1b[31m" + b"x" * 34)
    trace.event(Kind.BOUNCE, attachment=5, size=(1 << 64) - 1)
    trace._events[0]["kind"] = 65535
    model = applied(trace)
    assert model.registry.devices[9].name.startswith("\\xff\x1b")


def test_names_of_processes_are_those_of_their_main_threads() -> None:
    trace = Trace()
    trace.run_as(312, "worker", tid=313).export()
    trace.run_as(312, "weston").export()
    trace.run_as(312, "worker", tid=313).export()
    assert applied(trace).processes.comm(312) == "weston"


def test_importer_is_the_first_frame_that_is_not_ours() -> None:
    frames = (
        "bpf_prog_6deef7357e7b4530_exit+0x11",
        "kretprobe_trampoline+0x0",
        "dma_buf_attach+0x12",
        "vb2_dc_attach_dmabuf+0x5c [videobuf2-dma-contig]",
        "__prepare_dmabuf+0x1 [videobuf2_common]",
    )
    importer = importer_of(frames)
    assert importer is not None
    assert (importer.function, importer.module) == ("vb2_dc_attach_dmabuf", "videobuf2_dma_contig")
    assert framework_of(importer, "vivid").contiguous
    assert importer_of(frames[:3]) is None
    assert framework_of(None, "vivid") is UNKNOWN


def test_frameworks_by_prefix_and_by_driver_only_through_prime() -> None:
    built_in = importer_of(("vb2_dc_attach_dmabuf+0x5c",))
    assert framework_of(built_in, "").name == "vb2-dma-contig"
    prime = importer_of(("drm_gem_prime_import_dev+0x5c [drm]",))
    assert framework_of(prime, "mxsfb").name == "drm-gem-dma"
    assert framework_of(prime, "virtio_gpu") is UNKNOWN
    assert framework_of(importer_of(("rga_attach+0x1 [rga]",)), "mxsfb") is UNKNOWN


def test_limits_in_force_and_where_they_come_from() -> None:
    bare = effective(Limits(1, bus="platform"), UNKNOWN)
    assert (bare.max_segment_size, bare.segment_size_source) == (65536, Source.DEFAULT)
    assert (bare.segment_boundary_mask, bare.address_limit) == (NO_LIMIT, NO_LIMIT)
    pci = Limits(
        1, bus="pci", has_parms=True, max_segment_size=65536, segment_boundary_mask=0xFFFF_FFFF,
        dma_mask=0xFFFF_FFFF, bus_dma_limit=0x3FFF_FFFF,
    )  # fmt: skip
    force = effective(pci, UNKNOWN)
    assert (force.segment_size_source, force.boundary_source) == (Source.DEFAULT, Source.DEFAULT)
    assert force.address_limit == 0x3FFF_FFFF


def test_what_is_inside_of_dma_buf_is_no_importer() -> None:
    """From a guest with 6.1: the probe's own code lay where a module had been initialised."""
    attach = (
        "acpi_button_driver_init+0xb9 [button]",
        "dma_buf_dynamic_attach+0x5",
        "vb2_dc_attach_dmabuf+0x5a [videobuf2_dma_contig]",
        "__prepare_dmabuf.constprop.0+0x1ac [videobuf2_common]",
    )
    for frames in (attach, ("?", *attach[1:]), attach[1:], attach[2:]):
        importer = importer_of(frames)
        assert importer is not None and importer.function == "vb2_dc_attach_dmabuf"
    unmap = (
        "?",
        "dma_buf_unmap_attachment+0x9",
        "dma_buf_unmap_attachment_unlocked+0x46",
        "vb2_dc_map_dmabuf.cold+0x1f [videobuf2_dma_contig]",
    )
    importer = importer_of(unmap)
    assert importer is not None and importer.source_function == "vb2_dc_map_dmabuf"
