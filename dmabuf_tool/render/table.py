# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables: columns as data, rows of cells, as plain text or for rich.

A column says its name, unit and meaning once; the table's head, the JSON keys and the manual come
from it. Cells are made safe for a terminal here, so that no caller can forget it. A cell may be
several lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmabuf_tool.kernel.text import pad, safe, width

if TYPE_CHECKING:
    from rich.console import RenderableType

Cell = str | tuple[str, ...]
"""One line, or several."""


@dataclass(frozen=True)
class Column:
    """One column: its head, its key in JSON, unit and meaning.

    `width` is what it is cut to where a table is too wide for the terminal; pipes get all of it.
    """

    name: str
    key: str
    width: int
    description: str
    unit: str = ""
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns, with the sentence to print where there are none."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = ""


Part = Table | str
"""A page is a sequence of these: tables, and lines of text."""


def _lines(cell: Cell) -> tuple[str, ...]:
    """Make the lines of a cell safe."""
    return tuple(map(safe, (cell,) if isinstance(cell, str) else cell)) or ("",)


def _cut(text: str, cells: int) -> str:
    """Shorten a text to a number of cells; the last one says that something is missing."""
    if width(text) <= cells:
        return text
    kept = ""
    for char in text:
        if width(kept + char) >= cells:
            break
        kept += char
    return kept + "~"


def _widths(table: Table, rows: list[list[tuple[str, ...]]], limit: int | None) -> list[int]:
    """Give each column what its longest cell takes, and no more than its own width if too wide."""
    widths = [
        max([width(column.name), *(width(line) for row in rows for line in row[index])])
        for index, column in enumerate(table.columns)
    ]
    if limit is None or sum(widths) + 2 * (len(widths) - 1) <= limit:
        return widths
    cut = [
        min(wide, max(column.width, width(column.name)))
        for wide, column in zip(widths, table.columns, strict=True)
    ]
    # What is left over goes to the columns that were cut, from the last (the most talkative) on.
    spare = limit - sum(cut) - 2 * (len(cut) - 1)
    for index in reversed(range(len(cut))):
        more = max(0, min(spare, widths[index] - cut[index]))
        cut[index] += more
        spare -= more
    return cut


def text(table: Table, limit: int | None = None) -> str:
    """Draw a table as aligned plain text, at most `limit` cells wide if that can be done.

    Returns lines that end in a line break; the sentence for it where the table has no rows.
    """
    if not table.rows and table.empty:
        return table.empty + "\n"
    rows = [[_lines(cell) for cell in row] for row in table.rows]
    widths = _widths(table, rows, limit)
    out = [_line(table.columns, [column.name for column in table.columns], widths)]
    for row in rows:
        for index in range(max(map(len, row))):
            cells = [lines[index] if index < len(lines) else "" for lines in row]
            out.append(_line(table.columns, cells, widths))
    return "\n".join(out) + "\n"


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    """Join the cells of one line, aligned, without blanks at its end."""
    return "  ".join(
        pad(_cut(cell, wide), wide, right=column.right)
        for column, cell, wide in zip(columns, cells, widths, strict=True)
    ).rstrip()


def page(parts: Sequence[Part], limit: int | None = None) -> str:
    """Write a page of tables and lines as plain text."""
    return "".join(
        text(part, limit) if isinstance(part, Table) else safe(part) + "\n" for part in parts
    )


def rich_page(parts: Sequence[Part]) -> list[RenderableType]:
    """Make the same page for rich. Nothing in it is read as markup."""
    from rich.text import Text

    return [_rich_table(part) if isinstance(part, Table) else Text(safe(part)) for part in parts]


def _rich_table(table: Table) -> RenderableType:
    """Make one table for rich."""
    from rich.table import Table as RichTable
    from rich.text import Text

    if not table.rows and table.empty:
        return Text(table.empty, style="dim")
    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        drawn.add_column(
            Text(column.name),
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.right else "fold",
            no_wrap=column.right,
        )
    for row in table.rows:
        drawn.add_row(*(Text("\n".join(_lines(cell))) for cell in row))
    return drawn
