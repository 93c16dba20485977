# SPDX-License-Identifier: GPL-2.0-or-later
"""attach-refused, map-refused and pin-refused."""

import errno

from batches import Trace, runs
from raised import findings, one

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.refusals import negative
from dmabuf_tool.schema import DomainType, Flag

VB2 = "vb2_dc_attach_dmabuf [videobuf2_dma_contig]"


def test_errno_names() -> None:
    assert negative(-22) == "-EINVAL"
    assert negative(-512) == "-ERESTARTSYS"
    assert negative(-4000) == "-E4000"


def test_attach_refused_names_errno_importer_and_people() -> None:
    trace = Trace().run_as(312, "kwin")
    device = trace.device("card0", driver="edu")
    buffer = trace.export(exporter="vfio")
    for _ in range(3):
        trace.attach(buffer, device, result=-errno.EOPNOTSUPP)
    found = one(trace, "attach-refused")
    assert found.severity is Severity.ERROR
    assert found.count == 3
    assert found.told.evidence["errno"] == "-EOPNOTSUPP"
    assert "exporter vfio, importer edu_attach [edu]" in found.told.title
    assert found.subject.buffer is not None and found.subject.buffer.id == buffer.id
    assert found.subject.device is not None and found.subject.device.name == "card0"
    assert found.subject.tgid == 312


def test_attach_that_works_or_was_interrupted_is_no_refusal() -> None:
    trace = Trace()
    device, buffer = trace.device(), trace.export()
    trace.attach(buffer, device)
    assert not findings(trace, "attach-refused")
    trace.attach(buffer, device, result=-errno.EINTR)
    assert one(trace, "attach-refused").severity is Severity.INFO


def test_two_errnos_are_two_causes() -> None:
    trace = Trace()
    device, buffer = trace.device(), trace.export()
    trace.attach(buffer, device, result=-errno.EINVAL)
    trace.attach(buffer, device, result=-errno.ENOMEM)
    assert len(findings(trace, "attach-refused")) == 2


def test_map_refused_by_the_dma_api_behind_the_exporters_errno() -> None:
    trace = Trace()
    domain = trace.domain(DomainType.PAGING | DomainType.DMA_API)
    device = trace.device(domain=domain, flags=Flag.HAS_MASK | Flag.TRANSLATED)
    attachment = trace.attach(trace.export(), device)
    trace.map_failed(attachment, -errno.EBUSY, dma_errno=-errno.ENOMEM)
    found = one(trace, "map-refused")
    assert found.severity is Severity.ERROR
    assert found.told.evidence["dma_errno"] == "-ENOMEM"
    assert found.told.evidence["step"] == "DMA API"
    assert "no I/O virtual addresses" in found.told.title
    assert found.subject.domain == domain


def test_map_refused_by_a_full_bounce_buffer() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    trace.bounce(attachment, 3 << 20)
    trace.map_failed(attachment, -errno.ENOMEM, dma_errno=-errno.EIO)
    found = one(trace, "map-refused")
    assert "bounce buffer cannot take them" in found.told.title
    assert found.told.evidence["bounced_bytes"] == 3 << 20


def test_map_refused_by_an_exporter_that_returned_null() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    trace.map_failed(attachment, -errno.ENOMEM)
    found = one(trace, "map-refused")
    assert found.told.evidence["step"] == "exporter"
    assert "NULL becomes -ENOMEM" in found.told.title


def test_interrupted_map_is_info() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(), trace.device())
    trace.map_failed(attachment, -512)
    assert one(trace, "map-refused").severity is Severity.INFO


def vivid(trace: Trace, wait_ms: float, lengths: tuple[int, ...], tid: int = 312) -> None:
    """An import by vb2-dma-contig that ends after a while."""
    trace.run_as(312, "v4l2-ctl")
    attachment = trace.attach(trace.export(sum(lengths), "udmabuf"), trace.device(), importer=VB2)
    mapping = trace.map(attachment, runs(*lengths))
    trace.run_as(312, "v4l2-ctl", tid).wait(wait_ms).unmap(mapping)
    trace.detach(attachment)


def test_table_the_importer_took_back() -> None:
    trace = Trace()
    vivid(trace, 1, (65536, 65536, 131072))
    found = one(trace, "map-refused")
    assert found.told.evidence["step"] == "importer"
    assert found.told.evidence["longest_run"] == 131072
    assert found.told.evidence["size"] == 262144


def test_cached_table_the_importer_took_back() -> None:
    """Up to 6.14: unmap does nothing, detach ends the mapping."""
    trace = Trace()
    attachment = trace.attach(trace.export(8192, "udmabuf"), trace.device(), importer=VB2)
    mapping = trace.map(attachment, runs(4096, 4096))
    trace.unmap(mapping, flags=Flag.CACHED)
    trace.detach(attachment, flags=Flag.IN_ATTACH)
    assert one(trace, "map-refused").told.evidence["runs"] == 2
    assert one(trace, "not-contiguous").count == 1


def test_contiguous_table_taken_back_is_not_the_tables_fault() -> None:
    trace = Trace()
    vivid(trace, 1, (65536,))
    assert not findings(trace, "map-refused")
    assert not findings(trace, "not-contiguous")


def test_pin_refused() -> None:
    trace = Trace()
    attachment = trace.attach(
        trace.export(exporter="amdgpu"), trace.device(), importer="ib_umem_dmabuf_get [ib_core]"
    )
    trace.pin(attachment)
    assert not findings(trace, "pin-refused")
    trace.pin(attachment, -errno.EINVAL)
    trace.pin(attachment, -errno.EINVAL)
    found = one(trace, "pin-refused")
    assert (found.severity, found.count) == (Severity.ERROR, 2)
    assert "importer rdma" in found.told.title
    assert found.subject.attachment is not None
