# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of verbs that judge: configured constraints and thresholds of findings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dmabuf_tool.errors import UsageError

if TYPE_CHECKING:
    from dmabuf_tool.rules.engine import Engine

_Function = TypeVar("_Function", bound=Callable[..., Any])


def judging_options(function: _Function) -> _Function:
    """Add --constraints and --threshold; the verb gets `constraints` and `thresholds`."""
    function = click.option(
        "--threshold",
        "thresholds",
        metavar="ID.NAME=NUMBER",
        multiple=True,
        help="Change a threshold of a finding; 'explain ID' names them.",
    )(function)
    return click.option(
        "--constraints",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Limits of devices, instead of /etc/dmabuf-tool/constraints.toml.",
    )(function)


def engine(constraints: Path | None, thresholds: tuple[str, ...]) -> Engine:
    """An engine with these settings. Raises UsageError, one line."""
    from dmabuf_tool.model.configured import load_constraints
    from dmabuf_tool.rules.engine import Engine

    return Engine(load_constraints(constraints), read_thresholds(thresholds))


def read_thresholds(given: tuple[str, ...]) -> dict[str, int]:
    """Read "id.name=number" options. Raises UsageError."""
    from dmabuf_tool.rules.registry import rules

    known = {f"{rule.id}.{one.name}" for rule in rules() for one in rule.thresholds}
    out = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or not number.isascii() or not number.isdigit():
            raise UsageError(f"--threshold {text}: write ID.NAME=NUMBER")
        if name not in known:
            raise UsageError(f"--threshold {text}: no such threshold; 'explain ID' names them")
        out[name] = int(number)
    return out
