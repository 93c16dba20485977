# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard at several sizes: it fits, counts what it leaves out, and shows names safely."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dmabuf_tool.render.live import (
    BufferRow,
    DeviceRow,
    FindingRow,
    LevelRow,
    Snapshot,
    by_rule,
    dashboard,
    fit,
    share,
)
from dmabuf_tool.schema import Losses

HOSTILE = "\x1b[2J[red]evil\n\u202e"


def snapshot(rows: int, context: str = "", losses: Losses | None = None) -> Snapshot:
    return Snapshot(
        elapsed_s=83.4,
        now_ns=10**12,
        events=1234567,
        event_rate=12345,
        map_rate=4120,
        live_buffers=rows,
        live_bytes=151 << 20,
        recording="-> x.dmabuf 3.4M",
        losses=losses or Losses(),
        notes=["no probe for invalidate"] if losses else [],
        findings=[
            {
                "id": f"not-contiguous-{number}",
                "severity": "error",
                "title": f"not contiguous: longest run 64 KiB of 8.3 MiB {HOSTILE}",
                "count": 312,
                "last_ns": 10**12 - 3 * 10**9,
            }
            for number in range(rows)
        ],
        devices=[DeviceRow("0000:00:05.0", "edu", 32, "DMA-FQ", 12, 34, 4100.2, 8.3e9, 0, 1)]
        * rows,
        levels=[LevelRow("#3", 4 << 20, "0000:00:05.0", "DMA-FQ", 0xFFF00000, 16, context, 4096)]
        * rows,
        buffers=[BufferRow("#3", 41, "system", 4 << 20, HOSTILE, "weston/312", ["a", "b"], 7)]
        * rows,
    )


def screen(shown: Snapshot, columns: int, lines: int) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=lines, color_system=None)
    console.print(dashboard(shown, columns, lines))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\n")[:-1]


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (100, 30), (60, 12), (40, 8), (200, 3)])
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
@pytest.mark.parametrize("context", ["", "vm 5 glxgears/312"])
def test_it_fits(size: tuple[int, int], rows: int, context: str) -> None:
    lines = screen(snapshot(rows, context, Losses(12)), *size)
    assert len(lines) <= max(size[1], 5)
    assert all(len(line) <= size[0] for line in lines)
    assert "\x1b" not in "".join(lines)


def test_80_by_24() -> None:
    lines = screen(snapshot(1, "vm 5 glxgears/312"), 80, 24)
    text = "\n".join(lines)
    assert lines[0] == (
        "dmabuf-tool trace  01:23  1234567 events, 12k/s  4.1k maps/s  1 buffer, 151M"
    )
    assert lines[1] == "nothing lost  -> x.dmabuf 3.4M  Ctrl-C ends"
    assert [line.split()[:2] for line in lines if line[:6].isupper()] == [
        ["FINDING", "SEVERITY"],
        ["DEVICE", "DRIVER"],
        ["BUFFER", "LEVEL"],
        ["BUFFER", "INO"],
    ]
    for shown in ("0000:00:05.0", "0xfff00000", "DMA-FQ", "vm 5 glxgears/312", "weston/312", "3s"):
        assert shown in text


def test_names_are_shown_as_they_are_but_safe() -> None:
    text = "\n".join(screen(snapshot(1), 160, 50))
    assert "\\x1b[2J[red]evil\\x0a\\u202e" in text


def test_what_does_not_fit_is_counted() -> None:
    text = "\n".join(screen(snapshot(40), 80, 24))
    assert text.count(" more") == 4
    assert "... 38 more" in text


def test_the_causes_of_a_finding_share_a_line() -> None:
    def finding(id: str, severity: str, count: int, last_ns: int) -> dict[str, object]:
        title = f"{id} of {count}"
        return {
            "id": id, "severity": severity, "title": title, "count": count, "last_ns": last_ns
        }  # fmt: skip

    rows = by_rule(
        [
            finding("bounced", "error", 3, 50),
            finding("bounced", "warning", 9, 70),
            finding("fragmented", "info", 1, 10),
            finding("bounced", "error", 2, 60),
        ]
    )
    assert rows == [
        FindingRow("bounced", "error", "bounced of 3", 2, 5, 60),
        FindingRow("bounced", "warning", "bounced of 9", 1, 9, 70),
        FindingRow("fragmented", "info", "fragmented of 1", 1, 1, 10),
    ]


def test_losses_and_what_cannot_be_traced() -> None:
    lines = screen(snapshot(0, losses=Losses(12, 3)), 100, 30)
    assert lines[1].startswith("lost: 12 events, 3 scatterlist entries")
    assert lines[2] == "no probe for invalidate"
    assert "none so far" in "\n".join(lines)


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(-3, 100))
def test_share(wanted: list[int], room: int) -> None:
    given_lines = share(wanted, room)
    assert all(0 <= got <= most for got, most in zip(given_lines, wanted, strict=True))
    assert sum(given_lines) == min(sum(wanted), max(0, room))


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=8), st.integers(0, 200))
def test_fit(columns: list[tuple[int, bool]], room: int) -> None:
    natural, stretch = [wide for wide, _ in columns], [can for _, can in columns]
    widths = fit(natural, stretch, room)
    for wide, most, can in zip(widths, natural, stretch, strict=True):
        assert wide == most or (can and 6 <= wide < most)
    if sum(widths) > room:
        assert all(wide <= 6 for wide, can in zip(widths, stretch, strict=True) if can)


def test_rich_is_imported_only_to_draw() -> None:
    code = "import sys, dmabuf_tool.render.live; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
