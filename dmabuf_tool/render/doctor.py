# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be traced here, as lines with a mark and a fix, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from dmabuf_tool.kernel.checks import OK, Check, missing_requirements
from dmabuf_tool.kernel.machine import Machine
from dmabuf_tool.render.table import Cell, Column, Part, Table

SCHEMA: Final = "dmabuf-tool/doctor/1"

_WRAP: Final = 49  # cells of a detail, so that a line fits 80

COLUMNS: Final = (
    Column("STATUS", "status", 8, "ok, degraded (something is lost) or missing"),
    Column("CHECK", "what", 24, "What was looked at"),
    Column("DETAIL", "detail", 40, "What was found, and below it what to do"),
)


def page(checks: Sequence[Check], machine: Machine) -> list[Part]:
    """Make the page: kernel, one line a check with its fix below, and the verdict."""
    rows: list[list[Cell]] = [[check.status, check.what, _detail(check)] for check in checks]
    return [
        f"{machine.host}: Linux {machine.kernel} {machine.arch}",
        "",
        Table(COLUMNS, rows),
        "",
        *verdict(checks),
    ]


def _detail(check: Check) -> tuple[str, ...]:
    """Write what was found and, where something is wrong, what to do."""
    lines = textwrap.wrap(check.detail, _WRAP)
    if check.fix and check.status != OK:
        lines += textwrap.wrap(check.fix, _WRAP, initial_indent="-> ", subsequent_indent="   ")
    return tuple(lines)


def verdict(checks: Sequence[Check]) -> list[str]:
    """Say whether tracing is possible, and if not every reason."""
    reasons = missing_requirements(checks)
    if not reasons:
        return ["Tracing is possible."]
    return ["Tracing is not possible:", *(f"  {reason}" for reason in reasons)]


def document(checks: Sequence[Check], machine: Machine) -> dict[str, Any]:
    """Make the JSON document. Documented in the manual."""
    reasons = missing_requirements(checks)
    return {
        "schema": SCHEMA,
        **machine.as_json(),
        "can_trace": not reasons,
        "reasons": reasons,
        "checks": [asdict(check) for check in checks],
    }
