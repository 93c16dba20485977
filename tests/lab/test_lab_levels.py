# SPDX-License-Identifier: GPL-2.0-or-later
"""After random legal operations on both levels the tool's two-level table is the driver's."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from compare_levels import Compared, compare

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.schema import Losses

MOMENTS = 12  # ten random ones, the end of the run, and after everything was undone
INFORMATIVE = {"level2-map", "nested", "level1-bypassed"}
"""Of group B, what legal operations may raise."""


@cache
def _compared(share: Path) -> Compared:
    return compare(share / "truth.dmabuf", share / "levels.log", share / "levels.tables")


@pytest.fixture
def compared(guest) -> Compared:
    assert guest["truth"]["status"] == 0, guest["truth"]
    return _compared(guest.share)


def test_the_table_equals_the_drivers_at_every_moment(compared):
    assert [one.number for one in compared.moments] == list(range(1, MOMENTS + 1))
    assert [word for one in compared.moments for word in one.differences()] == []
    # There was something to compare: level 2 from both sources, and level 1 alone.
    rows = [row for one in compared.moments for row in one.driver]
    assert {row.source for row in rows} == {"dma-address", "pages", None}
    assert sum(row.nested for row in rows) > MOMENTS
    assert not compared.moments[-1].driver


def test_all_operations_were_done(guest, compared):
    done = json.loads(guest["truth"]["stdout"].splitlines()[-1])
    assert sum(done["operations"].values()) >= 5000
    assert done["unexpected"] == []
    assert compared.model.losses == Losses()
    kinds = {row.kind for one in compared.moments for row in one.driver}
    assert kinds == ({"", "domain"} if guest.kernel == "6.1" else {"", "domain", "gpuvm"})


def test_legal_operations_raise_no_alarm(compared):
    group_b = {
        "stale-level1", "domain-switched-while-mapped", "unmap-elsewhere", "mapped-twice",
        "level2-outlives-buffer", "iova-reused-under-level2", "fault-attributed", "partial-unmap",
        "revoke-not-honoured", "moved-without-notice", "context-leak",
    }  # fmt: skip
    raised = {one.rule.id for one in compared.findings}
    assert raised & group_b == set()
    assert raised >= INFORMATIVE - {"nested"}
    errors = [one for one in compared.findings if one.severity >= Severity.ERROR]
    assert errors == []


def test_contexts_belong_to_who_made_them(guest, compared):
    pid = json.loads(guest["truth"]["stdout"].splitlines()[-1])["pid"]
    for number in compared.contexts.values():
        context = compared.model.levels.contexts.find(number)
        assert context is not None and (context.tgid, context.freed_ns > 0) == (pid, True)
