# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture of random operations on both levels equals the test driver's logs, and ftrace counts
the same."""

from __future__ import annotations

from collections import Counter

import pytest
from compare import OPS, differences, from_capture, from_log
from matrix import RUNS

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.probes.providers import PROVIDERS
from dmabuf_tool.schema import Flag, Kind, Losses


def captured(path):
    """Every event of a capture by the name of its function's event; and the losses."""
    found = Counter()
    with open_capture(path) as reader:
        for batch in reader.batches():
            for name, kind in OPS.items():
                chosen = batch.events["kind"] == kind
                if kind == Kind.MAP:  # the table of a dynamic attach: no call to map
                    chosen &= (batch.events["flags"] & Flag.IN_ATTACH) == 0
                found[name] += int(chosen.sum())
        return dict(found), reader.losses


def unlogged(log, seen):
    """Operations of the capture that the log does not have, whatever their order."""

    def operations(sides):
        return Counter(
            (tid, one.op, *sorted(one.fields.items()))
            for tid, thread in sides.by_thread.items()
            for one in thread
        )

    return operations(seen) - operations(log)


def methods_of(path):
    """What functions are hooked by, in a capture's plan, but those that fentry cannot read."""
    others = {function for provider in PROVIDERS for function in provider.no_fentry}
    with open_capture(path) as reader:
        found = {way["method"] for way in reader.header.plan if way["function"] not in others}
    return found - {"raw_tracepoint"}


def compare(log, seen, losses, kernel):
    """Event for event; where kernel code is preemptible, what is missing must be counted.

    There the kernel may skip a program and its twin at once, for which one needs luck: each is
    skipped in some three calls of a thousand.
    """
    if kernel != "7.2" or not losses.calls:
        assert differences(log, seen) == []
        assert losses == Losses()
        return
    assert losses == Losses(calls=losses.calls)
    assert unlogged(log, seen) == Counter()
    assert 0 <= log.count() - seen.count() <= losses.calls < 10


def test_every_operation_is_in_the_capture(guest):
    truth = guest["truth"]
    assert truth["status"] == 0, truth
    log = from_log(guest.share / "truth.log")
    assert log.count() > 10_000
    assert len({seen.fields["tgid"] for one in log.by_thread.values() for seen in one}) >= 2
    both_levels = from_log(guest.share / "levels.log")
    assert both_levels.count() > 1_000
    for tid, operations in both_levels.by_thread.items():
        log.by_thread[tid] += operations
    compare(log, from_capture(guest.capture("truth")), losses_of(guest, "truth"), guest.kernel)


def test_ftrace_counts_the_same(guest):
    assert guest["truth"]["status"] == 0
    counted = guest.json("truth.counts")
    found, losses = captured(guest.capture("truth"))
    assert counted["misses"] == 0
    missing = Counter(counted["counts"]) - Counter(found)
    assert Counter(found) - Counter(counted["counts"]) == Counter()
    assert missing.total() <= losses.calls


def losses_of(guest, name):
    return captured(guest.capture(name))[1]


def test_what_is_rare_is_hooked_otherwise_where_kernel_code_is_preemptible(guest):
    rare = {"kprobe_multi"} if guest.kernel == "7.2" else set()
    assert methods_of(guest.capture("truth")) == {"fentry"} | rare


def saw_the_same(guest, name, method):
    """A capture by one method, and the driver's log."""
    assert methods_of(guest.capture(name)) == {method}
    log, seen = from_log(guest.share / f"{name}.log"), from_capture(guest.capture(name))
    assert log.count() > 300
    compare(log, seen, losses_of(guest, name), guest.kernel)


@pytest.mark.parametrize("guest", RUNS["fprobes"], indirect=True)
def test_fprobes_see_the_same(guest):
    result = guest["fprobes"]
    assert result["status"] == 0, result
    saw_the_same(guest, "fprobes", "kprobe_multi")


@pytest.mark.parametrize("guest", RUNS["reloaded"], indirect=True)
def test_kprobes_see_the_same_while_a_module_goes_and_comes(guest):
    result = guest["reloaded"]["operations"]
    assert result["status"] == 0, result
    saw_the_same(guest, "reloaded", "kprobe")
