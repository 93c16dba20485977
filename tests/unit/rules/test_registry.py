# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules as data: found by listing, and complete."""

from dmabuf_tool.rules.base import GROUPS
from dmabuf_tool.rules.registry import load, rules


def test_ids_are_the_names_of_their_files() -> None:
    for loaded in load():
        function = loaded.check or loaded.check_state
        assert function is not None, loaded.rule.id
        assert function.__module__.rpartition(".")[2] == loaded.rule.id.replace("-", "_")
        assert bool(loaded.rule.reads) is (loaded.check is not None)


def test_descriptions_are_whole() -> None:
    for rule in rules():
        assert rule.group in GROUPS
        for field in ("title", "holds", "why", "source", "advice", "example"):
            assert getattr(rule, field).strip(), (rule.id, field)
        assert rule.advice.endswith(".") and rule.holds.endswith("."), rule.id
        for threshold in rule.thresholds:
            assert threshold.name in rule.holds, (rule.id, threshold.name)
