# SPDX-License-Identifier: GPL-2.0-or-later
"""What proves that an importer refused a table, and what disproves it."""

from collections.abc import Callable

import pytest
from batches import Attachment, Mapping, Trace, runs
from test_refused import VB2
from two_levels import VA, bind, vm

from dmabuf_tool.model.configured import Configured
from dmabuf_tool.model.undone import UNDONE_NS
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Flag

MS = 1_000_000
TABLE = runs(4096, 4096, 4096)


class Import:
    """One attachment of an importer of one run, or of a device configured for two segments."""

    def __init__(self, one_run: bool) -> None:
        self.one_run = one_run
        self.trace = Trace()
        self.device = self.trace.device()
        self.buffer = self.trace.export(3 * 4096)
        importer = VB2 if one_run else "edu_attach [edu]"
        self.attachment: Attachment = self.trace.attach(self.buffer, self.device, importer=importer)

    def map(self) -> Mapping:
        return self.trace.map(self.attachment, TABLE)

    def refused(self, cuts: tuple[int, ...] = ()) -> bool:
        engine = Engine(None if self.one_run else lambda _: Configured(max_segment_count=2))
        for batch in self.trace.batches(cuts):
            engine.feed(batch)
        found = {one.rule.id: one for one in engine.findings()}
        if not self.one_run:
            return found["too-many-segments"].severity is Severity.ERROR
        rules = {"not-contiguous", "map-refused", "union-unsatisfiable"}
        assert len(rules & found.keys()) in (0, 3)
        return "map-refused" in found


def nothing(one: Import, mapping: Mapping) -> None:
    """The unmap follows the map."""


def nearly_too_late(one: Import, mapping: Mapping) -> None:
    one.trace.now += UNDONE_NS - 1000


def too_late(one: Import, mapping: Mapping) -> None:
    one.trace.now += UNDONE_NS


def cpu_access(one: Import, mapping: Mapping) -> None:
    one.trace.cpu_begin(one.buffer)


def other_buffers_access(one: Import, mapping: Mapping) -> None:
    one.trace.cpu_begin(one.trace.export())


def level2_range(one: Import, mapping: Mapping) -> None:
    bind(one.trace, vm(one.trace, 7, one.device), VA, one.attachment)


def another_thread(one: Import, mapping: Mapping) -> None:
    one.trace.run_as(100, "app", 101)


@pytest.mark.parametrize("one_run", [True, False])
@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize(
    ("between", "refused"),
    [
        (nothing, True),
        (nearly_too_late, True),
        (other_buffers_access, True),
        (too_late, False),
        (cpu_access, False),
        (level2_range, False),
        (another_thread, False),
    ],
)
def test_what_comes_between_map_and_unmap(
    between: Callable[[Import, Mapping], None], refused: bool, detached: bool, one_run: bool
) -> None:
    one = Import(one_run)
    mapping = one.map()
    between(one, mapping)
    one.trace.unmap(mapping)
    if detached:
        one.trace.run_as(100, "app").detach(one.attachment)
    assert one.refused() is refused
    assert one.refused(tuple(range(len(one.trace)))) is refused


REFUSES = "vb2_dc_map_dmabuf [videobuf2_dma_contig]"
COLD = "vb2_dc_map_dmabuf.cold [videobuf2_dma_contig]"
ENDS = "vb2_dc_unmap_dmabuf [videobuf2_dma_contig]"


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("caller", "between", "refused"),
    [
        (REFUSES, nothing, True),
        (COLD, nothing, True),
        (REFUSES, too_late, True),  # a serial console is slow to take the complaint
        (REFUSES, cpu_access, True),  # another process's
        (ENDS, nothing, False),
        ("?", nothing, True),
        ("?", too_late, False),
    ],
)
def test_who_unmaps_proves_it(
    caller: str, between: Callable[[Import, Mapping], None], refused: bool, cached: bool
) -> None:
    one = Import(one_run=True)
    mapping = one.map()
    between(one, mapping)
    if cached:
        one.trace.unmap(mapping, flags=Flag.CACHED, caller=caller)
        one.trace.detach(one.attachment, flags=Flag.IN_ATTACH)
    else:
        one.trace.unmap(mapping, caller=caller)
    assert one.refused() is refused
    assert one.refused(tuple(range(len(one.trace)))) is refused


def test_a_driver_of_no_known_framework_is_judged_by_time() -> None:
    one = Import(one_run=False)
    one.trace.unmap(one.map(), caller="edu_unmap [edu]")
    assert one.refused()


@pytest.mark.parametrize("one_run", [True, False])
def test_an_attachment_that_keeps_another_table_refused_none(one_run: bool) -> None:
    for kept, ends in ((True, False), (True, True), (False, True)):
        one = Import(one_run)
        for _ in range(2):
            one.trace.unmap(one.map())
        assert one.refused()
        last = one.map()
        if ends:
            one.trace.wait(UNDONE_NS / MS if kept else 1).unmap(last)
            one.trace.detach(one.attachment)
        assert one.refused() is not kept


@pytest.mark.parametrize("one_run", [True, False])
def test_every_try_is_counted_once_whether_it_lives_or_not(one_run: bool) -> None:
    one = Import(one_run)
    for _ in range(3):
        one.trace.unmap(one.map())
    for detached in (False, True):
        if detached:
            one.trace.detach(one.attachment)
        engine = Engine(None if one_run else lambda _: Configured(max_segment_count=2))
        engine.feed(one.trace.batch())
        for _ in range(2):
            found = {one.rule.id: one.count for one in engine.findings()}
            assert found["map-refused" if one_run else "too-many-segments"] == 3


def test_an_attachment_from_before_the_trace_may_have_kept_one() -> None:
    trace = Trace()
    attachment = trace.old_attachment(trace.old_buffer(3 * 4096), trace.device())
    trace.unmap(trace.map(attachment, TABLE))
    trace.detach(attachment)
    engine = Engine(lambda _: Configured(max_segment_count=2))
    engine.feed(trace.batch())
    (found,) = [one for one in engine.findings() if one.rule.id == "too-many-segments"]
    assert found.severity is Severity.WARNING
