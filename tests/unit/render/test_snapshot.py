# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dashboard is given of both levels."""

from __future__ import annotations

import pytest
from batches import Trace
from rich.console import Console
from two_levels import IOVA, PAGE, VA, bind, private, put, translated, vm

from dmabuf_tool.model.model import Model
from dmabuf_tool.render.live import dashboard
from dmabuf_tool.render.snapshot import Rates, snapshot

SIZE = 16 * PAGE


def shot(trace: Trace):
    model = Model()
    model.apply(trace.batch())
    return snapshot(model, [], Rates(), elapsed_s=1.0, now_ns=trace.now, events=len(trace))


def mapped(count: int) -> tuple[Trace, int, list]:
    trace = Trace().run_as(312, "player")
    device = translated(trace)
    attachments = [trace.attach(trace.export(SIZE), device) for _ in range(count)]
    for number, attachment in enumerate(attachments):
        trace.map(attachment, [(IOVA + number * SIZE, SIZE)])
    return trace, private(trace, device), attachments


def test_a_range_is_a_row_of_its_mapping():
    trace, domain, attachments = mapped(3)
    put(trace, domain, VA, IOVA + PAGE, 2 * PAGE)
    bind(trace, vm(trace, 90, attachments[0].device), 2 * VA, attachments[0], SIZE)
    rows = shot(trace).levels
    told = [(row.buffer, row.context, row.context_address, row.size, row.source) for row in rows]
    assert told == [
        ("#1", f"domain {domain} player/312", VA, 2 * PAGE, "nested"),
        ("#1", "vm 90 player/312", 2 * VA, SIZE, "nested"),
        ("#3", "", None, SIZE, ""),
        ("#2", "", None, SIZE, ""),
    ]  # fmt: skip
    assert {row.address for row in rows} == {IOVA + number * SIZE for number in range(3)}


def test_level_2_is_shown_however_much_is_newer():
    trace, domain, _ = mapped(100)
    put(trace, domain, VA, IOVA, SIZE)
    rows = shot(trace).levels
    assert len(rows) == 64
    assert rows[0].context_address == VA


@pytest.mark.parametrize("columns", [80, 130])
def test_the_screen_has_both_levels(columns):
    trace, domain, _ = mapped(2)
    put(trace, domain, VA, IOVA, SIZE)
    console = Console(width=columns, height=48, record=True, file=None)
    with console.capture() as capture:
        console.print(dashboard(shot(trace), columns, 48))
    lines = capture.get().splitlines()
    head = next(line for line in lines if "LEVEL 2" in line)
    row = lines[lines.index(head) + 1]
    assert hex(IOVA) in row and hex(VA) in row and f"domain {domain}" in row
    assert max(map(len, lines)) <= columns
    assert ("nested" in row) == (columns >= 100)
