# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/coverage.md names every finding, and says "lab" where a kept capture raises it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dmabuf_tool.probes.providers import PROVIDERS
from dmabuf_tool.rules.registry import rules

PROJECT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (lab|constructed) \| (.+) \|$", re.MULTILINE)


def test_coverage_is_what_the_captures_show() -> None:
    rows = ROW.findall((PROJECT / "docs/coverage.md").read_text())
    assert [id_ for id_, _, _ in rows] == [rule.id for rule in rules()]
    raised = {
        act["id"]
        for path in (PROJECT / "tests/data").glob("*-[abcd].json")
        for act in json.loads(path.read_text())
        if act["bad"]
    }
    assert {id_ for id_, proof, _ in rows if proof == "lab"} == raised


def test_every_provider_says_that_no_hardware_was_seen() -> None:
    text = (PROJECT / "docs/coverage.md").read_text()
    rows = re.findall(r"^\| (\w+) \| .+ \| ([^|]+) \| (\w+) \|$", text, re.MULTILINE)
    table = {name: seen for name, _, seen in rows if name != "module"}
    assert set(table) == {one.module for one in PROVIDERS} | {"panthor"}
    assert set(table.values()) == {"no"}
