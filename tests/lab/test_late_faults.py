# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults, up to ten seconds after the unmap: each told in a trace's JSON with the buffer, the
unmap and the time between, as in the driver's logs, before what came a second later.

A device's IOVAs are used again, so both sides are compared in their order, not by address.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compare import lines_of, objects

SOON_NS = 1_000_000_000
TRANSFERS = 8

Line = dict[str, Any]


@dataclass
class Transfer:
    """A read at an address that was unmapped, as the driver's logs have it."""

    begin_ns: int
    level: int
    unmap: Line
    told_ns: list[int]
    """When the kernel told of it: SMMUv3 may tell more than once."""


def transfers(share: Path) -> list[Transfer]:
    """All reads, in their order."""
    found: list[Transfer] = []
    unmaps: dict[tuple[str, int], tuple[int, Line]] = {}
    for line in lines_of(share / "faults.log"):
        if line["op"] == "unmap":
            unmaps[line["device"], line["dma_addr"]] = (1, line)
        elif line["op"] == "level2-unmap" and not line["implicit"]:
            unmaps[line["device"], line["va"]] = (2, line)
        elif line["op"] == "edu-dma":
            found.append(Transfer(line["start_ns"], *unmaps[line["device"], line["va"]], []))
    for told in lines_of(share / "faults.faults"):
        # What was told before is an earlier run's of this guest.
        for mine in [one for one in found if one.begin_ns <= told["ts_ns"]][-1:]:
            mine.told_ns.append(told["ts_ns"])
    return found


@pytest.fixture
def said(guest):
    """What the trace said of events, in its order."""
    result = guest["findings"]
    assert result["status"] == 7, result
    return [line for line in objects(result["stdout"]) if line["type"] == "event"]


@pytest.fixture
def faults(said):
    """Those that are faults."""
    return [line for line in said if line["event"] == "fault"]


@pytest.fixture
def told(guest, faults):
    """The driver's transfers, each with the trace's events of it."""
    truth = transfers(guest.share)
    assert Counter(one.level for one in truth) == {1: TRANSFERS // 2, 2: TRANSFERS // 2}
    out = []
    for number, one in enumerate(truth):
        end = truth[number + 1].begin_ns if number + 1 < len(truth) else 1 << 63
        out.append((one, [event for event in faults if one.begin_ns <= event["ts_ns"] < end]))
    return out


def test_faults_are_read_as_every_driver_prints_them(faults, told):
    """workloads/late_faults.py, PRINTED: what the probe lets through, on a real kernel."""
    printed = [one for one in faults if one["ts_ns"] < told[0][0].begin_ns]
    assert [
        (one["address"], one["provider"], one["attribution"]["evidence"]["requester"])
        for one in printed
    ] == [
        (0x1000, 1, 0x3A01),
        (0x2000, 2, 0x18),
        (0x3000, 2, 0xB04),
        (0x4000, 3, 0x18),
        (0x5000, 4, 0x18),
        (0x6000, 1, 0x18),
        (0x7000, 3, 0x18),
    ]
    assert {one["attribution"]["verdict"] for one in printed} == {"never mapped"}


def test_all_are_told_and_nothing_else(told):
    for one, events in told:
        assert one.told_ns
        assert len(events) == len(one.told_ns), one


def test_each_is_attributed_to_its_buffer_and_unmap(told):
    for one, events in told:
        for event in events:
            said = event["attribution"]
            assert said["verdict"] == "unmapped", (one, event)
            assert said["buffer"]["ino"] == one.unmap["ino"]
            assert said["device"] == one.unmap["device"]
            assert said["evidence"]["level"] == one.level
            assert said["evidence"]["unmapped_by"] == one.unmap["tgid"]


def test_the_time_since_the_unmap_is_the_drivers(told):
    for one, events in told:
        for event, at_ns in zip(events, one.told_ns, strict=True):
            since = event["attribution"]["evidence"]["since_unmap_ns"]
            # The driver's stamp and the trace's are of one line of the kernel's log; between them
            # a busy host may let any time pass.
            first, last = sorted((at_ns, event["ts_ns"]))
            shortest, longest = first - one.unmap["ts_ns"], last - one.unmap["start_ns"]
            assert shortest <= since <= longest, (one, event)


def test_a_fault_is_told_before_what_came_a_second_later(said, told):
    """By the stamps of the trace's lines, not by the clock of a machine that may be slow."""
    newest_ns = 0
    for line in said:
        if line["event"] == "fault":
            assert newest_ns - line["ts_ns"] < SOON_NS
        newest_ns = max(newest_ns, line["ts_ns"])
    # Enough came meanwhile to tell by.
    assert newest_ns - told[-1][0].told_ns[0] > SOON_NS
