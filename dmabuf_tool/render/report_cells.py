# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines and cells of the report's text: what a column is called, and how a value is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dmabuf_tool.kernel.text import size
from dmabuf_tool.render.table import Cell, Column, Table

WIDTH: Final = 98
"""Cells of a line at most."""

Row = Mapping[str, Any]
"""An object of the report's document."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, already safe, with a style for terminals ("" for none)."""

    text: str
    style: str = ""


Part = Line | Table
Write = Callable[[Row], Cell]
Columns = Sequence[tuple[Column, Write]]
"""A table's columns: where each comes from, and how it is written."""


def text(key: str) -> Write:
    """As it is."""
    return lambda row: "-" if row[key] in (None, "") else str(row[key])


def in_bytes(key: str) -> Write:
    """A number of bytes."""
    return lambda row: "-" if row[key] is None else size(row[key])


def in_hex(key: str) -> Write:
    """An address or a mask."""
    return lambda row: "-" if not row[key] else f"{row[key]:#x}"


def names(key: str) -> Write:
    """A list of names, the first of them."""

    def write(row: Row) -> Cell:
        names = row[key]
        return " ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "") or "-"

    return write


def number(name: str, key: str, wide: int, description: str) -> tuple[Column, Write]:
    """A column of numbers."""
    return Column(name, key, wide, description, right=True), text(key)


def rows_table(rows: Sequence[Row], columns: Columns, several: bool, empty: str) -> Table:
    """Rows as a table; `several` captures have a column of their own."""
    if several:
        columns = [number("CAP", "capture", 3, "index of the capture"), *columns]
    cells = [[write(row) for _, write in columns] for row in rows]
    return Table([column for column, _ in columns], cells, empty=empty)
