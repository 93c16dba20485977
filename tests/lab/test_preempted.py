# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that preempt calls: what the kernel skipped of the probes was told by their twins."""

from __future__ import annotations

import json
from collections import Counter

from compare import differences, from_capture, from_log
from test_truth import losses_of, unlogged


def preempted(guest):
    """The run's result, the workload's account, the log and the capture."""
    result = guest["preempted"]
    assert result["status"] == 0 and result["workload"]["status"] == 0, result
    account = json.loads(result["workload"]["stdout"].splitlines()[-1])
    log = from_log(guest.share / "preempted.log")
    return result, account, log, from_capture(guest.capture("preempted"))


def test_twins_take_over_what_was_skipped(guest):
    """Where kernel code is not preemptible nothing is skipped, and there are none."""
    result, _, _, _ = preempted(guest)
    if guest.kernel != "7.2":
        assert not result["skipped"] and not result["taken"]
        return
    firsts = sum(counts[-1] for counts in result["skipped"].values())
    lost = losses_of(guest, "preempted").calls
    taken = sum(result["taken"].values())
    assert taken > 20
    # What both missed is known to the call; how much it is, is the machine's.
    assert firsts - taken == lost < taken


def test_what_preempted_is_told_right(guest):
    _, account, log, seen = preempted(guest)
    for sides in (log, seen):
        sides.by_thread.pop(account["looper"], None)
    losses = losses_of(guest, "preempted")
    assert losses.events == losses.scatterlists == losses.untracked == 0
    assert log.count() > 500
    assert unlogged(log, seen) == Counter()
    assert 0 <= log.count() - seen.count() <= losses.calls
    if not losses.calls:
        assert differences(log, seen) == []


def test_what_was_preempted_is_told_right(guest):
    _, account, _, seen = preempted(guest)
    mine = seen.by_thread[account["looper"]]
    maps = [one.fields for one in mine if one.op == "map"]
    lost = losses_of(guest, "preempted").calls
    assert account["pairs"] > 1000
    assert 0 <= account["pairs"] - len(maps) <= lost
    assert 0 <= account["pairs"] - sum(one.op == "unmap" for one in mine) <= lost
    assert {(one["result"], one["nents"], one["sum"]) for one in maps} == {(0, 16, 16 * 4096)}
