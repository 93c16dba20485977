# SPDX-License-Identifier: GPL-2.0-or-later
"""explain: all findings, in words and as JSON."""

import json

import pytest
from click.testing import CliRunner

from dmabuf_tool.cli import explain, settings
from dmabuf_tool.errors import UsageError
from dmabuf_tool.rules.registry import rules


def run(*arguments: str) -> str:
    result = CliRunner().invoke(explain.command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_list_names_all() -> None:
    text = run("--list")
    for rule in rules():
        assert f"  {rule.id} " in text
    assert all(len(line) < 100 for line in text.splitlines())


def test_every_finding_is_explained() -> None:
    for rule in rules():
        text = run(rule.id)
        assert text.startswith(f"{rule.id} (")
        for head in ("What", "Why", "Do", "Kernel", "Example"):
            assert f"\n  {head} " in text
        for threshold in rule.thresholds:
            assert f"{rule.id}.{threshold.name}=" in text.replace("\n           ", " ")


def test_json_and_unknown_ids() -> None:
    document = json.loads(run("--json"))
    assert [one["id"] for one in document["findings"]] == [rule.id for rule in rules()]
    with pytest.raises(UsageError, match="no finding is called 'x'"):
        run("x")


def test_thresholds_are_read_and_checked() -> None:
    assert settings.read_thresholds(("bounced.stale_ms=20",)) == {"bounced.stale_ms": 20}
    for wrong in ("bounced.stale_ms", "bounced.stale_ms=-1", "bounced.x=1", "x=1"):
        with pytest.raises(UsageError):
            settings.read_thresholds((wrong,))
