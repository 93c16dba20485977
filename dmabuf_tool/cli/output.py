# SPDX-License-Identifier: GPL-2.0-or-later
"""Where output goes: plain text, a terminal, or JSON.

Pipes, dumb terminals and NO_COLOR (https://no-color.org) get plain text; rich is imported for a
terminal only, as it takes longer to import than most verbs take to run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dmabuf_tool.render.table import Part

_Function = TypeVar("_Function", bound=Callable[..., Any])


def is_plain() -> bool:
    """Whether stdout gets plain text."""
    return (
        not sys.stdout.isatty()
        or bool(os.environ.get("NO_COLOR"))
        or os.environ.get("TERM", "dumb") in {"", "dumb"}
    )


def write_page(parts: Sequence[Part], width: int | None = None) -> None:
    """Write tables and lines to stdout; in a pipe in `width` cells a line, or as wide as they
    are."""
    from dmabuf_tool.render import table

    if is_plain():
        # A terminal that wants no colours has a width all the same.
        limit = os.get_terminal_size().columns if sys.stdout.isatty() else width
        sys.stdout.write(table.page(parts, limit or None))
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in table.rich_page(parts, console.width):
        console.print(part, soft_wrap=True)


def write_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout, readable by eyes too."""
    # ASCII only: no control or bidi character of a hostile name reaches a terminal.
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def format_options(function: _Function) -> _Function:
    """Add --format text|json and its short form --json; the verb gets `output_format`."""
    function = click.option(
        "--json", "output_format", flag_value="json", help="The same as --format json."
    )(function)
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="A table for eyes, or a JSON document.",
    )(function)
