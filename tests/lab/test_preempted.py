# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that preempt calls: what the kernel skipped of the probes was told by their twins."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from compare import Sides, differences, from_capture, from_log
from matrix import RUNS
from test_truth import losses_of, unlogged

pytestmark = pytest.mark.parametrize("guest", RUNS["preempted"], indirect=True)


@pytest.fixture(scope="module")
def result(guest):
    """What the run returned."""
    result = guest["preempted"]
    assert result["status"] == 0 and result["workload"]["status"] == 0, result
    return result


@pytest.fixture(scope="module")
def account(result):
    """The workload's."""
    return json.loads(result["workload"]["stdout"].splitlines()[-1])


@pytest.fixture(scope="module")
def seen(guest, result):
    """The capture."""
    return from_capture(guest.capture("preempted"))


@pytest.fixture(scope="module")
def losses(guest, result):
    """What the capture counts as lost."""
    return losses_of(guest, "preempted")


def without(sides, tid):
    """The operations of all other threads."""
    return Sides({one: thread for one, thread in sides.by_thread.items() if one != tid})


def test_twins_take_over_what_was_skipped(result, losses):
    firsts = sum(counts[-1] for counts in result["skipped"].values())
    taken = sum(result["taken"].values())
    assert taken > 20
    # What both missed is known to the call; how much it is, is the machine's.
    assert firsts - taken == losses.calls < taken


def test_what_preempted_is_told_right(guest, account, seen, losses):
    log = without(from_log(guest.share / "preempted.log"), account["looper"])
    seen = without(seen, account["looper"])
    assert losses.events == losses.scatterlists == losses.untracked == 0
    assert log.count() > 500
    assert unlogged(log, seen) == Counter()
    assert 0 <= log.count() - seen.count() <= losses.calls
    if not losses.calls:
        assert differences(log, seen) == []


def test_what_was_preempted_is_told_right(account, seen, losses):
    mine = seen.by_thread[account["looper"]]
    maps = [one.fields for one in mine if one.op == "map"]
    assert account["pairs"] > 1000
    assert 0 <= account["pairs"] - len(maps) <= losses.calls
    assert 0 <= account["pairs"] - sum(one.op == "unmap" for one in mine) <= losses.calls
    assert {(one["result"], one["nents"], one["sum"]) for one in maps} == {(0, 16, 16 * 4096)}
