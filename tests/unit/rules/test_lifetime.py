# SPDX-License-Identifier: GPL-2.0-or-later
"""Group C: what is not ended, ended wrongly, or held too long."""

from __future__ import annotations

import errno

from batches import MS, Trace, pages
from raised import findings, one

from dmabuf_tool.model.holders import Holder, Snapshot, read_snapshots
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import Finding
from dmabuf_tool.schema import Flag, Losses


def held(
    trace: Trace,
    rule: str,
    snapshots: list[Snapshot],
    exits: list[tuple[int, int]] | None = None,
) -> list[Finding]:
    """Findings of a rule, with snapshots of who holds what."""
    engine = Engine()
    engine.feed(trace.batch())
    engine.model.process_exits(exits or [])
    for snapshot in snapshots:
        engine.model.holders.see(snapshot)
    engine.model.advance(trace.now)
    return [finding for finding in engine.findings() if finding.rule.id == rule]


def test_mapping_leak_after_exit() -> None:
    trace = Trace().run_as(312, "cam")
    attachment = trace.attach(trace.export(8192), trace.device())
    mapping = trace.map(attachment, pages(2))
    exited = trace.now
    trace.wait(249)
    assert not findings(trace, "mapping-leak", [(312, exited)])
    trace.wait(1)
    found = one(trace, "mapping-leak", [(312, exited)])
    assert (found.severity, found.told.evidence["size"]) == (Severity.WARNING, 8192)
    assert not findings(trace, "mapping-leak")
    trace.unmap(mapping)
    assert not findings(trace, "mapping-leak", [(312, exited)])


def test_cached_table_without_users_is_no_leak() -> None:
    trace = Trace().run_as(312, "cam")
    attachment = trace.attach(trace.export(8192), trace.device())
    trace.unmap(trace.map(attachment, pages(2)), flags=Flag.CACHED)
    exited = trace.now
    trace.wait(1000)
    assert not findings(trace, "mapping-leak", [(312, exited)])


def test_many_live_mappings_of_one_attachment() -> None:
    for count, raised in ((63, False), (64, True)):
        trace = Trace()
        attachment = trace.attach(trace.export(4096), trace.device())
        for _ in range(count):
            trace.map(attachment, pages(1))
        assert bool(findings(trace, "mapping-leak")) is raised


def test_detach_while_mapped() -> None:
    for unmap, raised in ((False, True), (True, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(8192), trace.device())
        mapping = trace.map(attachment, pages(2))
        if unmap:
            trace.unmap(mapping)
        trace.detach(attachment)
        assert bool(findings(trace, "detach-while-mapped")) is raised


def test_two_maps_of_one_table_are_two_users() -> None:
    """An exporter that keeps its table gives it twice; the second unmap finds it gone."""
    trace = Trace()
    attachment = trace.attach(trace.export(8192, "vivid"), trace.device())
    trace.map(attachment, pages(2))
    second = trace.map(attachment, pages(2))
    trace.unmap(second)
    second.id = 0
    trace.unmap(second, flags=Flag.UNKNOWN_TABLE)
    trace.detach(attachment)
    assert not findings(trace, "detach-while-mapped")


def test_detach_may_end_tables_the_exporter_keeps() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device())
    trace.map(attachment, pages(2), flags=Flag.IN_ATTACH)
    trace.detach(attachment, flags=Flag.IN_ATTACH)
    assert not findings(trace, "detach-while-mapped")


def test_detach_while_mapped_is_withheld_after_a_loss() -> None:
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device())
    trace.map(attachment, pages(2))
    trace.detach(attachment)
    trace.losses = Losses(untracked=1)
    assert not findings(trace, "detach-while-mapped")


def dead() -> tuple[Trace, int, int]:
    trace = Trace().run_as(312, "cam")
    buffer = trace.export(10 << 20)
    trace.attach(buffer, trace.device())
    exited = trace.now
    trace.wait(2000)
    return trace, buffer.ino, exited


def test_held_by_dead_process() -> None:
    trace, ino, exited = dead()
    nobody = Snapshot(trace.now, True, {})
    (found,) = held(trace, "held-by-dead-process", [nobody], [(312, exited)])
    assert found.told.evidence["attachments"] == 1
    somebody = Snapshot(trace.now, True, {ino: (Holder(400, "child", 1, 0),)})
    assert not held(trace, "held-by-dead-process", [somebody], [(312, exited)])
    not_all = Snapshot(trace.now, False, {})
    assert not held(trace, "held-by-dead-process", [not_all], [(312, exited)])
    too_early = Snapshot(trace.now - MS, True, {})
    assert not held(trace, "held-by-dead-process", [too_early], [(312, exited)])
    assert not held(trace, "held-by-dead-process", [nobody])


def test_living_importer_keeps_what_it_imported() -> None:
    trace = Trace().run_as(312, "client")
    buffer = trace.export(10 << 20)
    exited = trace.now + 10_000
    trace.run_as(900, "kwin").attach(buffer, trace.device())
    trace.wait(3000)
    nobody = Snapshot(trace.now, True, {})
    assert not held(trace, "held-by-dead-process", [nobody], [(312, exited)])


def snapshots(*counts: int) -> list[Snapshot]:
    return [
        Snapshot(
            second * 1_000_000_000,
            True,
            {ino: (Holder(312, "weston", 1, 0),) for ino in range(1, count + 1)},
        )
        for second, count in enumerate(counts, 1)
    ]


def test_fd_growth() -> None:
    trace = Trace()
    trace.export()
    (found,) = held(trace, "fd-growth", snapshots(10, 30, 30, 60, 74))
    assert found.told.evidence["grown_by"] == 64
    assert not held(trace, "fd-growth", snapshots(10, 30, 30, 60, 73))
    assert not held(trace, "fd-growth", snapshots(10, 30, 60, 74))
    assert not held(trace, "fd-growth", snapshots(10, 30, 29, 60, 74))


def test_snapshots_in_captures() -> None:
    good = {"ts_ns": 5, "complete": True, "buffers": [[41, [[312, "cam", 2, 1]]]]}
    wrong = [{"holders": 3}, {"holders": {"ts_ns": "x"}}, {"holders": {**good, "buffers": [[1]]}}]
    (snapshot,) = read_snapshots([*wrong, {"holders": good}, {"x": 1}])
    assert snapshot.buffers == {41: (Holder(312, "cam", 2, 1),)}
    assert snapshot.buffers_of() == {312: 1}


def test_exporter_exhausted_names_the_top_holders() -> None:
    trace = Trace()
    device = trace.device()
    trace.run_as(400, "app").export(8 << 20, "vivid")
    trace.run_as(312, "cam").export(30 << 20, "vivid")
    attachment = trace.attach(trace.export(10 << 20, "vivid"), device)
    trace.map_failed(attachment, -errno.ENOMEM, dma_errno=-errno.ENOMEM)
    assert not findings(trace, "exporter-exhausted")
    trace.map_failed(attachment, -errno.ENOMEM)
    found = one(trace, "exporter-exhausted")
    assert found.told.evidence["top"] == "cam/312 40.0 MiB, app/400 8.0 MiB"
    assert found.told.evidence["held_buffers"] == 3


def test_pin_leak_at_detach() -> None:
    for unpins, raised in ((0, True), (1, False)):
        trace = Trace()
        attachment = trace.attach(trace.export(), trace.device())
        trace.pin(attachment)
        trace.pin(attachment, -errno.EINVAL)
        for _ in range(unpins):
            trace.unpin(attachment)
        trace.detach(attachment)
        assert bool(findings(trace, "pin-leak")) is raised


def test_pin_leak_after_exit() -> None:
    trace = Trace().run_as(312, "cam")
    trace.pin(trace.attach(trace.export(), trace.device()))
    exited = trace.now
    trace.wait(249)
    assert not findings(trace, "pin-leak", [(312, exited)])
    trace.wait(1)
    assert findings(trace, "pin-leak", [(312, exited)])


def test_cpu_access_unbalanced() -> None:
    for ends, raised in ((1, True), (2, False), (3, True)):
        trace = Trace()
        buffer = trace.export()
        trace.cpu_begin(buffer)
        trace.cpu_begin(buffer)
        for _ in range(ends):
            trace.cpu_end(buffer)
        assert not findings(trace, "cpu-access-unbalanced")
        trace.release(buffer)
        assert bool(findings(trace, "cpu-access-unbalanced")) is raised


def test_old_buffers_may_have_been_begun_before_the_trace() -> None:
    trace = Trace()
    buffer = trace.old_buffer()
    trace.cpu_end(buffer)
    trace.release(buffer)
    assert not findings(trace, "cpu-access-unbalanced")


def test_importer_cache_holds() -> None:
    for count, wait_ms, raised in ((64, 10_000, True), (63, 10_000, False), (64, 9_990, False)):
        trace = Trace().run_as(900, "kwin")
        device = trace.device("card0")
        for _ in range(count):
            trace.attach(
                trace.export(4096, "amdgpu"), device, importer="drm_gem_prime_import [drm]"
            )
        trace.wait(wait_ms)
        found = held(trace, "importer-cache-holds", [Snapshot(trace.now, True, {})])
        assert bool(found) is raised
    some = {40 + number: (Holder(1, "x", 1, 0),) for number in range(1, 2)}
    trace.wait(100)
    assert not held(trace, "importer-cache-holds", [Snapshot(trace.now, True, some)])


def test_slow_release() -> None:
    for duration, raised in ((50 * MS, True), (50 * MS - 1, False)):
        trace = Trace()
        trace.release(trace.export(), duration)
        assert bool(findings(trace, "slow-release")) is raised


def test_few_slow_releases_among_many_are_no_alarm() -> None:
    slow, quick = 50 * MS, 1
    for durations, severity, count in (
        ([slow], Severity.INFO, 1),
        ([slow, slow], Severity.WARNING, 2),
        ([slow, slow - 1], Severity.INFO, 1),
        ([slow, *[quick] * 18, slow], Severity.WARNING, 2),
        ([slow, *[quick] * 19, slow], Severity.INFO, 2),
    ):
        trace = Trace()
        for duration in durations:
            trace.release(trace.export(), duration)
        found = one(trace, "slow-release")
        assert (found.severity, found.count) == (severity, count)
        assert found.told.evidence["duration_ns"] == slow
