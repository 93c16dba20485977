# SPDX-License-Identifier: GPL-2.0-or-later
"""What rules find in a constructed trace."""

from __future__ import annotations

from batches import Trace

from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import Finding


def findings(trace: Trace, rule: str, exits: list[tuple[int, int]] | None = None) -> list[Finding]:
    """Findings of one rule, the worst first."""
    engine = Engine()
    engine.feed(trace.batch())
    engine.model.process_exits(exits or [])
    engine.model.advance(trace.now)
    return [finding for finding in engine.findings() if finding.rule.id == rule]


def one(trace: Trace, rule: str, exits: list[tuple[int, int]] | None = None) -> Finding:
    """The only finding of a rule."""
    found = findings(trace, rule, exits)
    assert len(found) == 1, [finding.told.title for finding in found]
    return found[0]


def severities(trace: Trace) -> dict[str, Severity]:
    """Rule id -> worst severity, of everything found."""
    engine = Engine()
    engine.feed(trace.batch())
    worst: dict[str, Severity] = {}
    for finding in engine.findings():
        worst[finding.rule.id] = max(finding.severity, worst.get(finding.rule.id, Severity.INFO))
    return worst
