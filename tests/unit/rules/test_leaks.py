# SPDX-License-Identifier: GPL-2.0-or-later
"""attachment-leak: only what nobody will end any more."""

from batches import MS, Attachment, Trace
from raised import findings, one

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.schema import Losses

RULE = "attachment-leak"


def leaked() -> tuple[Trace, Attachment]:
    trace = Trace().run_as(312, "cam")
    attachment = trace.attach(trace.export(10 << 20), trace.device())
    trace.unmap(trace.map(attachment, [(0x1000, 4096)]))
    return trace, attachment


def test_left_after_the_process_exited() -> None:
    trace, attachment = leaked()
    exited = trace.now
    trace.wait(250)
    found = one(trace, RULE, [(312, exited)])
    assert found.severity is Severity.WARNING
    assert found.subject.attachment is not None
    assert found.subject.attachment.id == attachment.id
    assert "edu_attach+0x5c [edu]" in str(found.told.evidence["stack"])
    assert found.told.evidence["size"] == 10 << 20


def test_driver_has_time_to_clean_up() -> None:
    trace, _ = leaked()
    exited = trace.now
    trace.wait(249)
    assert not findings(trace, RULE, [(312, exited)])


def test_process_that_lives_holds_what_it_wants() -> None:
    trace, _ = leaked()
    trace.wait(5000)
    assert not findings(trace, RULE)
    assert not findings(trace, RULE, [(313, trace.now - 1000 * MS)])


def test_detached_in_time() -> None:
    trace, attachment = leaked()
    exited = trace.now
    trace.wait(100).detach(attachment)
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, exited)])


def test_another_process_uses_it_too() -> None:
    trace, attachment = leaked()
    trace.run_as(400, "child").map(attachment, [(0x1000, 4096)])
    exited = trace.now
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, exited)])


def test_used_after_the_exit_it_is_not_the_same_process() -> None:
    trace, attachment = leaked()
    exited = trace.now
    trace.wait(10).map(attachment, [(0x1000, 4096)])
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, exited)])


def test_exit_before_the_attach_was_another_process() -> None:
    trace, _ = leaked()
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, 1)])


def test_older_than_the_trace() -> None:
    trace = Trace().run_as(312, "cam")
    trace.old_attachment(trace.old_buffer(), trace.device())
    exited = trace.now
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, exited)])


def test_withheld_after_a_loss() -> None:
    trace, _ = leaked()
    trace.losses = Losses(events=1)
    exited = trace.now
    trace.wait(1000)
    assert not findings(trace, RULE, [(312, exited)])


def test_idle_attachments_pile_up() -> None:
    for count, raised in ((255, False), (256, True)):
        trace = Trace()
        buffer, device = trace.export(), trace.device()
        for _ in range(count):
            trace.attach(buffer, device)
        assert bool(findings(trace, RULE)) is raised


def test_mapped_attachments_are_not_idle() -> None:
    trace = Trace()
    buffer, device = trace.export(), trace.device()
    for _ in range(256):
        attachment = trace.attach(buffer, device)
    trace.map(attachment, [(0x1000, 4096)])
    assert not findings(trace, RULE)


def test_healthy_streams_raise_nothing() -> None:
    trace = Trace()
    device = trace.device(dma_mask=(1 << 48) - 1)
    for _ in range(8):
        buffer = trace.export(65536)
        attachment = trace.attach(buffer, device)
        for _ in range(4):
            trace.cpu_begin(buffer)
            trace.cpu_end(buffer)
            trace.unmap(trace.map(attachment, [(0x10000, 65536)]))
        trace.detach(attachment)
        trace.release(buffer)
    from raised import severities

    assert all(severity is Severity.INFO for severity in severities(trace).values())
