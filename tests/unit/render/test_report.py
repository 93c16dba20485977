# SPDX-License-Identifier: GPL-2.0-or-later
"""The report's document and text, its manual, and the verb."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import report_page
import two_levels
from batches import Trace, pages, runs
from click.testing import CliRunner

from dmabuf_tool.capture.header import Header
from dmabuf_tool.capture.writer import CaptureWriter
from dmabuf_tool.cli import report as verb
from dmabuf_tool.errors import UsageError
from dmabuf_tool.kernel.text import safe, width
from dmabuf_tool.render.report_cells import WIDTH
from dmabuf_tool.render.report_keys import DOCUMENT_KEYS, PARTS
from dmabuf_tool.render.report_tables import BY
from dmabuf_tool.schema import DomainType, Flag, Losses

HEADER = Header(
    host="lab", kernel="6.12.9", arch="x86_64", boot_id="b", start_ns=1_000_000_000,
    realtime_offset_ns=0, command=["dmabuf-tool", "trace"],
)  # fmt: skip


def broken() -> Trace:
    """An import that fails, with hostile names."""
    trace = Trace().run_as(312, "evil\x1b[2J")
    domain = trace.domain(DomainType.PAGING | DomainType.DMA_API)
    flags = Flag.HAS_MASK | Flag.TRANSLATED
    device = trace.device("vivid\n.0", driver="vi\x07vid", domain=domain, flags=flags, group=3)
    buffer = trace.export(3 * 65536, "udmabuf", name="\x1b]0;owned\x07 \u202etxt")
    attachment = trace.attach(
        buffer, device, importer="vb2_dc_attach_dmabuf [videobuf2_dma_contig]"
    )
    trace.unmap(trace.map(attachment, runs(65536, 65536, 65536)))
    trace.detach(attachment)
    return trace


def healthy() -> Trace:
    trace = Trace()
    attachment = trace.attach(trace.export(8192), trace.device())
    trace.unmap(trace.map(attachment, pages(2)))
    trace.detach(attachment)
    return trace


def recorded(path: Path, trace: Trace, exits: list[list[int]] | None = None) -> str:
    with CaptureWriter(path, HEADER) as writer:
        writer.write(trace.batch())
        if exits:
            writer.write_inventory({"process_exits": exits})
        writer.close("done")
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(verb.command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout


@pytest.fixture
def bad(tmp_path: Path) -> str:
    return recorded(tmp_path / "bad.dmabuf", broken())


@pytest.fixture
def good(tmp_path: Path) -> str:
    return recorded(tmp_path / "good.dmabuf", healthy())


def test_document_has_the_documented_keys(bad: str) -> None:
    status, text = run("--json", bad)
    document: dict[str, Any] = json.loads(text)
    assert status == 0
    assert list(document) == list(DOCUMENT_KEYS)
    assert document["schema"] == "dmabuf-tool/report/1"
    for part, keys in PARTS.items():
        rows = document[part] if part in document else [document["buffers"][0][part]]
        rows = [rows] if isinstance(rows, dict) else rows
        assert rows or part in ("two_level", "two_level_ended"), part
        for row in rows:
            assert set(row) - {"capture"} == set(keys), part
    found = {finding["id"]: finding for finding in document["findings"]}
    assert {"map-refused", "not-contiguous"} <= set(found)
    finding = found["not-contiguous"]
    assert finding["severity"] == "error"
    assert finding["buffer"]["exporter"] == "udmabuf"
    assert finding["process"]["pid"] == 312
    assert finding["context"] == {"id": 1, "kind": "DMA"}
    assert finding["evidence"]["size_needed"] == 3 * 65536
    device = document["devices"][0]
    assert (device["iommu_group"], device["domain_type"]) == (3, "DMA")
    assert text.isascii()


def test_text_is_safe_narrow_and_plain_in_a_pipe(bad: str) -> None:
    _, text = run(*(f"--by={one}" for one in BY), bad)
    assert all(width(line) <= WIDTH for line in text.splitlines())
    assert all(line == safe(line) for line in text.splitlines())
    assert text.index("error    not-contiguous") < text.index("Devices")
    assert "longest run 64.0 KiB of 192.0 KiB in 3 runs" in text


def test_severity_filter_and_status(bad: str, good: str) -> None:
    assert run("--fail-on", "error", bad)[0] == 3
    assert run("--fail-on", "info", "--only", "bounced", bad)[0] == 0
    status, text = run("--fail-on", "warning", good)
    assert (status, "No findings." in text) == (0, True)
    document = json.loads(run("--json", "--only", "map-refused", bad)[1])
    assert [finding["id"] for finding in document["findings"]] == ["map-refused"]


def test_unknown_id_is_a_usage_error(bad: str) -> None:
    with pytest.raises(UsageError, match="no finding is called 'nonsense'"):
        run("--only", "nonsense", bad)
    with pytest.raises(click.UsageError):
        run()


def test_several_captures_stay_apart(bad: str, good: str) -> None:
    document = json.loads(run("--json", good, bad)[1])
    assert [capture["file"] for capture in document["captures"]] == [good, bad]
    assert {finding["capture"] for finding in document["findings"]} == {1}
    assert [(buffer["capture"], buffer["id"]) for buffer in document["buffers"]] == [(0, 1), (1, 1)]
    _, text = run(good, bad)
    assert "[1] not-contiguous" in text


def test_exits_in_the_capture_make_leaks(tmp_path: Path) -> None:
    trace = Trace().run_as(312, "cam")
    trace.attach(trace.export(), trace.device())
    path = recorded(tmp_path / "leak.dmabuf", trace, [[312, trace.now], ["x"], [1]])  # type: ignore[list-item]
    document = json.loads(run("--json", path)[1])
    assert [finding["id"] for finding in document["findings"]] == ["attachment-leak"]


def test_many_causes_of_one_finding_are_cut(tmp_path: Path) -> None:
    trace = Trace()
    for number in range(25):
        trace.run_as(100 + number, "app")
        trace.attach(trace.export(), trace.device(flags=Flag.HAS_MASK), result=-22)
        trace.attach(trace.export(4096), trace.device(flags=Flag.HAS_MASK))
    _, text = run(recorded(tmp_path / "many.dmabuf", trace))
    assert text.count("error    attach-refused\n") == 20
    assert "error    attach-refused: 5 more causes" in text
    assert text.count("info     undeclared-limits\n") == 3


def test_losses_and_what_they_withhold_are_told(tmp_path: Path) -> None:
    trace = Trace().run_as(312, "cam")
    trace.attach(trace.export(), trace.device())
    trace.losses = Losses(events=7, scatterlists=3)
    _, text = run(recorded(tmp_path / "lossy.dmabuf", trace, [[312, trace.now]]))
    assert "lost: 7 events, 3 scatterlists" in text
    assert "not told, as lost events could fake it: attachment-leak" in text


def test_lost_calls_are_a_loss(tmp_path: Path, good: str) -> None:
    trace = healthy()
    trace.losses = Losses(calls=4)
    path = recorded(tmp_path / "calls.dmabuf", trace)
    document = json.loads(run("--json", path, good)[1])
    assert document["losses"] == {"events": 0, "scatterlists": 0, "untracked": 0, "calls": 4}
    assert [one["complete"] for one in document["captures"]] == [False, True]
    text = run(path)[1]
    assert "lost: 4 calls;" in text and "none lost" not in text


def test_torn_capture_has_a_note(tmp_path: Path, bad: str) -> None:
    torn = tmp_path / "torn.dmabuf"
    torn.write_bytes(Path(bad).read_bytes()[:-5])
    assert "note: torn at byte" in run(str(torn))[1]


def test_manual_says_what_the_code_does() -> None:
    text = report_page.PAGE.read_text()
    assert report_page.fill(text) == text, "run tests/unit/render/report_page.py"
    section = text[text.index(".SH OPTIONS") : text.index(".SH FINDINGS")].replace("\\-", "-")
    options = [one for one in verb.command.params if isinstance(one, click.Option)]
    names = {name for one in options for name in one.opts if name.startswith("--")}
    assert names == set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section))
    for one in options:
        if isinstance(one.type, click.Choice):
            assert all(choice in section for choice in one.type.choices)


def test_two_levels_of_a_buffer(tmp_path: Path) -> None:
    trace = Trace().run_as(312, "player")
    device = two_levels.translated(trace, "0000:00:03.0")
    attachment = trace.attach(trace.export(1 << 16, exporter="system"), device)
    mapping = trace.map(attachment, [(0xFFFF0000, 1 << 16)])
    domain = two_levels.private(trace)
    two_levels.put(trace, domain, 0x4000_0000, 0xFFFF0000, 1 << 16)
    file = recorded(tmp_path / "two.dmabuf", trace)
    document = json.loads(run("--json", file)[1])
    assert document["two_level"] == [
        {
            "buffer": 1, "ino": 41, "device": "0000:00:03.0", "context": domain,
            "provider": "iommu",
            "level1": {"domain": 1, "domain_type": "DMA", "translated": True,
                       "address": 0xFFFF0000, "size": 1 << 16, "segments": 1},
            "level2": {"address": 0x4000_0000, "size": 1 << 16, "offset": 0},
            "source": "dma-address", "nested": True, "capture": 0,
        }
    ]  # fmt: skip
    context = document["contexts"][-1]
    assert (context["kind"], context["pid"], context["live_bytes"]) == ("unmanaged", 312, 1 << 16)
    assert mapping.id
    text = run("--by", "context", "--by", "buffer", file)[1]
    assert "  nested\n" in text
    assert "  level 1  0000:00:03.0: 0xffff0000, 64.0 KiB in 1 segment, DMA\n" in text
    assert f"    level 2  unmanaged {domain} of player/312: 0x40000000, 64.0 KiB" in text
