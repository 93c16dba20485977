# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables: columns as data, rows of cells, as plain text or for rich.

A column says its name, unit and meaning once; the table's head, the JSON keys and the manual come
from it. Cells are made safe for a terminal here, so that no caller can forget it. A cell may be
several lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmabuf_tool.kernel.text import pad, safe, width

if TYPE_CHECKING:
    from rich.text import Text

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

    Where it is too wide the last column is folded and the others are cut. Returns lines that end
    in a line break; the sentence for it where the table has no rows.
    """
    if not table.rows and table.empty:
        return table.empty + "\n"
    rows = [[_lines(cell) for cell in row] for row in table.rows]
    widths = _widths(table, rows, limit)
    out = [_line(table.columns, [column.name for column in table.columns], widths)]
    for row in rows:
        row[-1] = tuple(part for line in row[-1] for part in _fold(line, widths[-1]))
        for index in range(max(map(len, row))):
            cells = [lines[index] if index < len(lines) else "" for lines in row]
            out.append(_line(table.columns, cells, widths))
    return "\n".join(out) + "\n"


def _fold(line: str, cells: int) -> list[str]:
    """Break a line at spaces so that no part is wider than `cells`, if a word is not."""
    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts[-1] else word
        if parts[-1] and width(longer) > cells:
            parts.append("  " + word)
        else:
            parts[-1] = longer
    return parts


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


# What stands out on a terminal: the words that say how a line is.
_STYLES: Final = {"ok": "green", "degraded": "yellow", "missing": "bold red"}


def rich_page(parts: Sequence[Part], limit: int | None = None) -> list[Text]:
    """Make the same page with colours: one rich text a part. Nothing in it is read as markup."""
    from rich.text import Text

    return [Text("\n").join(map(_styled, *_drawn(part, limit))) for part in parts]


def _drawn(part: Part, limit: int | None) -> tuple[list[str], list[str]]:
    """Draw a part as plain lines, and say the style of each line's first word ("*": all of it)."""
    lines = page([part], limit).removesuffix("\n").split("\n")
    if not isinstance(part, Table) or not part.rows:
        return lines, [""] * len(lines)
    words = (line.partition(" ")[0] for line in lines[1:])
    return lines, ["*", *(_STYLES.get(word, "") for word in words)]


def _styled(line: str, style: str) -> Text:
    """Make a line of rich text that is not wrapped again."""
    from rich.text import Text

    drawn = Text(line)
    if style == "*":
        drawn.stylize("bold")
    elif style:
        drawn.stylize(style, 0, len(line.partition(" ")[0]))
    return drawn
