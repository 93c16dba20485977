# SPDX-License-Identifier: GPL-2.0-or-later
"""`report --address`: the history of an address; and the two-level table of what has ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from batches import Trace
from click.testing import CliRunner
from two_levels import IOVA, PAGE, VA, bind, fault, private, put, take, translated, vm

from dmabuf_tool.capture.header import Header
from dmabuf_tool.capture.writer import CaptureWriter
from dmabuf_tool.cli import report as verb
from dmabuf_tool.errors import UsageError
from dmabuf_tool.model.history import History
from dmabuf_tool.render.history import ADDRESS_KEYS, FAULT_KEYS, HISTORY_KEYS
from dmabuf_tool.rules.engine import Engine

SIZE = 16 * PAGE
HEADER = Header(
    host="lab", kernel="6.12.9", arch="x86_64", boot_id="b", start_ns=1_000_000_000,
    realtime_offset_ns=0, command=["dmabuf-tool", "trace"],
)  # fmt: skip


def story() -> Trace:
    """Two devices use one IOVA; a context maps it, part of it ends; two faults, one late."""
    trace = Trace()
    devices = [translated(trace), translated(trace, "0000:00:06.0", group=2)]
    first = trace.attach(trace.export(SIZE), devices[0])
    second = trace.attach(trace.export(SIZE), devices[1])
    mapping = trace.map(first, [(IOVA, SIZE)])
    other = trace.map(second, [(IOVA, SIZE)])
    domain = private(trace, devices[0])
    trace.run_as(312, "app")
    put(trace, domain, VA, IOVA, SIZE)
    bind(trace, vm(trace, 90, devices[1]), VA, second, SIZE)
    trace.wait(5).run_as(313, "worker")
    take(trace, domain, VA + 4 * PAGE, 2 * PAGE)
    trace.wait(20)
    take(trace, domain, VA, 4 * PAGE)
    trace.unmap(mapping)
    trace.wait(30_000)
    fault(trace, devices[1], IOVA + 8)
    trace.unmap(other)
    trace.map(first, [(IOVA, SIZE)])
    trace.wait(3)
    fault(trace, devices[0], IOVA + 0x20)
    return trace


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "a.dmabuf"
    with CaptureWriter(path, HEADER) as writer:
        writer.write(story().batch())
        writer.close("done")
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(verb.command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def asked(address: int, device: str = "", cuts: tuple[int, ...] = ()) -> History:
    history, engine = History(address, device), Engine()
    for batch in story().batches(list(cuts)):
        history.look(engine.feed(batch))
    return history


def test_level_1_of_all_devices_and_of_one():
    both = asked(IOVA + PAGE)
    assert [(one.device, one.offset, one.ended_ns > 0) for one in both.lives] == [
        (1, PAGE, True), (2, PAGE, True), (1, PAGE, False),
    ]  # fmt: skip
    assert [one.device for one in asked(IOVA + PAGE, "0000:00:06.0").lives] == [2]
    assert [hazard.device for hazard in both.faults] == []
    assert [hazard.device for hazard in asked(IOVA).faults] == [2, 1]
    assert [hazard.device for hazard in asked(IOVA, "0000:00:05.0").faults] == [1]


def test_level_2_ends_when_its_part_does():
    gone, other = asked(VA + 5 * PAGE).lives
    assert (gone.level, gone.offset) == (2, 5 * PAGE)
    assert (gone.start, gone.size) == (VA + 4 * PAGE, 2 * PAGE)
    assert (gone.begun_by, gone.ended_by, gone.nested) == (312, 313, True)
    assert (other.device, other.ended_ns, other.target) == (2, 0, IOVA)
    late, _ = asked(VA + PAGE).lives
    assert late.ended_ns - gone.ended_ns > 19_000_000
    kept, _ = asked(VA + 8 * PAGE).lives
    assert (kept.start, kept.ended_ns) == (VA + 6 * PAGE, 0)
    assert asked(VA + SIZE).lives == []


@pytest.mark.parametrize("address", [IOVA, IOVA + PAGE, VA, VA + 5 * PAGE, VA + 8 * PAGE])
def test_cuts_change_nothing(address):
    whole = asked(address)
    cut = asked(address, cuts=tuple(range(len(story()))))
    assert [(one.begun_ns, one.ended_ns, one.device, one.buffer) for one in cut.lives] == [
        (one.begun_ns, one.ended_ns, one.device, one.buffer) for one in whole.lives
    ]
    assert len(cut.faults) == len(whole.faults)


def test_the_document_has_the_documented_keys(capture):
    document = json.loads(run("--address", hex(IOVA), "--json", capture))
    assert list(document) == list(ADDRESS_KEYS)
    assert document["address"] == IOVA
    for name, keys in (("history", HISTORY_KEYS), ("faults", FAULT_KEYS)):
        assert document[name]
        assert all(set(row) - {"capture"} == set(keys) for row in document[name])


def test_the_text_is_a_line_a_change(capture):
    text = run("--address", str(IOVA), "-D", "0000:00:05.0", capture)
    assert "What was mapped at 0xfff00000 of 0000:00:05.0" in text
    words = re.findall(r"^ *\d+\.\d{6}  (\w+) ", text, re.MULTILINE)
    assert words == ["1", "1", "1", "fault", "1"]
    assert "mapped at the end of the trace" in text
    lines = text.replace(str(capture), "a.dmabuf").splitlines()
    assert max(map(len, lines)) <= 98
    assert "nothing that was traced" in run("--address", "0x1000", capture)


@pytest.mark.parametrize("arguments", [["--address", "top"], ["--address", "-4"], ["-D", "x"],
                                       ["--address", hex(1 << 64)]])  # fmt: skip
def test_wrong_usage(capture, arguments):
    with pytest.raises(UsageError):
        run(*arguments, capture)


def test_ended_ranges_are_told_with_their_level_1(capture):
    ended = json.loads(run("--json", capture))["two_level_ended"]
    assert [(one["level2"]["address"], one["level2"]["size"]) for one in ended] == [
        (VA, 4 * PAGE), (VA + 4 * PAGE, 2 * PAGE),
    ]  # fmt: skip
    assert {one["level1"]["address"] for one in ended} == {IOVA}
    assert all(one["nested"] and one["ended_by"]["pid"] == 313 for one in ended)
    text = run("--by", "context", capture)
    table = text.partition("Two levels that had ended")[2].splitlines()
    assert [line.split()[-3] for line in table[2:4]] == ["nested", "nested"]
