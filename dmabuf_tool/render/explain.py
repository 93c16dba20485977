# SPDX-License-Identifier: GPL-2.0-or-later
"""What findings mean, as text and JSON, from the rules' own descriptions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from dmabuf_tool.rules.base import GROUPS, Rule

SCHEMA: Final = "dmabuf-tool/explain/1"
WIDTH: Final = 78


def explanation(rule: Rule) -> str:
    """All that is known of a finding, wrapped."""
    parts = [
        f"{rule.id} ({rule.severity} at worst; {GROUPS[rule.group]})",
        _paragraph("What", f"{rule.title[:1].upper()}{rule.title[1:]}. {rule.holds}"),
        _paragraph("Why", rule.why),
        _paragraph("Do", rule.advice),
        _paragraph("Kernel", rule.source),
        _paragraph("Example", rule.example),
    ]
    for threshold in rule.thresholds:
        parts.append(
            _paragraph(
                "Option",
                f"--threshold {rule.id}.{threshold.name}={threshold.default} ({threshold.unit}): "
                f"{threshold.meaning}",
            )
        )
    return "\n".join(parts) + "\n"


def _paragraph(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {head:<8} ",
        subsequent_indent=" " * 11,
        break_on_hyphens=False,
        break_long_words=False,
    )


def listing(rules: Sequence[Rule]) -> str:
    """A line a finding, by group."""
    wide = max(len(rule.id) for rule in rules)
    lines = []
    for letter, title in GROUPS.items():
        chosen = [rule for rule in rules if rule.group == letter]
        if chosen:
            lines.append(f"{letter}. {title[:1].upper()}{title[1:]}")
            lines += [f"  {rule.id:<{wide}}  {rule.severity!s:<7}  {rule.title}" for rule in chosen]
    return "\n".join(lines) + "\n"


def document(rules: Sequence[Rule]) -> dict[str, Any]:
    """The same as a JSON document."""
    return {
        "schema": SCHEMA,
        "findings": [
            {
                "id": rule.id,
                "group": rule.group,
                "severity": str(rule.severity),
                "title": rule.title,
                "holds": rule.holds,
                "why": rule.why,
                "source": rule.source,
                "advice": rule.advice,
                "example": rule.example,
                "thresholds": {one.name: one.default for one in rule.thresholds},
            }
            for rule in rules
        ],
    }
