# SPDX-License-Identifier: GPL-2.0-or-later
"""Both levels in the report's text: the two-level table, and each buffer as a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dmabuf_tool.kernel.text import safe, size
from dmabuf_tool.render import report_cells as cells
from dmabuf_tool.render.report_cells import WIDTH, Columns, Line, Part, Row, Write
from dmabuf_tool.render.table import Cell, Column


def _ended(row: Row) -> Cell:
    return f"{(row['ended_ns'] - row['start_ns']) / 1e9:.3f} s"


def _source(row: Row) -> Cell:
    return "nested" if row["nested"] else row["source"] or "-"


def _part(key: str, inner: str, write: Callable[[Any], str]) -> Write:
    def cell(row: Row) -> Cell:
        value = row[key][inner] if row[key] is not None else None
        return "-" if value is None else write(value)

    return cell


_TWO_LEVEL: Final[Columns] = [
    cells.number("BUFFER", "buffer", 6, "id of the buffer"),
    (Column("DEVICE", "device", 16, "whose level 1"), cells.text("device")),
    (Column("DOMAIN", "level1", 9, "type of its domain"), _part("level1", "domain_type", str)),
    (
        Column("LEVEL 1", "level1", 14, "DMA address of the mapping", right=True),
        _part("level1", "address", hex),
    ),
    cells.number("CONTEXT", "context", 7, "whose addresses level 2 are"),
    (
        Column("LEVEL 2", "level2", 14, "address in the context", right=True),
        _part("level2", "address", hex),
    ),
    (Column("SIZE", "level2", 9, "of the range", right=True), _part("level2", "size", size)),
    (Column("SOURCE", "source", 11, "what feeds level 2; nested: translated again"), _source),
]
"""The two-level table, which --by context ends with."""

_ENDED: Final[Columns] = [
    (Column("ENDED", "ended_ns", 9, "since the start of the trace", right=True), _ended),
]

_LEVELS_SHOWN: Final = 1000
"""Rows of the two-level table in text; JSON has all."""
_ENDED_SHOWN: Final = 20
"""And of ranges that ended."""


def at_the_end(document: Mapping[str, Any], several: bool) -> list[Part]:
    """The two-level table at the end of the trace, and the last of what had ended by then."""
    rows = [row for row in document["two_level"] if row["level2"] is not None]
    ended = [
        {**row, "start_ns": document["captures"][row["capture"]]["start_ns"]}
        for row in document["two_level_ended"]
    ]
    parts = _level_table("Two levels, at the end of the trace", rows, _TWO_LEVEL, several)
    if ended:
        shown = ended[:_ENDED_SHOWN]
        title = "Two levels that had ended, the last first"
        parts += _level_table(title, shown, [*_TWO_LEVEL, *_ENDED], several)
    if len(ended) > _ENDED_SHOWN:
        more = f"and {len(ended) - _ENDED_SHOWN} more: --format json has the last {len(ended)}"
        parts.append(Line(more, "dim"))
    return parts


def _level_table(title: str, rows: Sequence[Row], columns: Columns, several: bool) -> list[Part]:
    parts: list[Part] = [
        Line(""),
        Line(title, "bold"),
        cells.rows_table(rows[:_LEVELS_SHOWN], columns, several, empty="no level 2"),
    ]
    if len(rows) > _LEVELS_SHOWN:
        parts.append(Line(f"and {len(rows) - _LEVELS_SHOWN} more: --format json has all", "dim"))
    return parts


def chains(document: Mapping[str, Any], several: bool) -> list[Part]:
    """Each buffer, the devices that have it mapped, and the contexts on top of them, as a tree."""
    contexts = {(one["capture"], one["id"]): one for one in document["contexts"]}
    buffers = {(one["capture"], one["id"]): one for one in document["buffers"]}
    trees: dict[tuple[int, int], dict[str, list[str]]] = {}
    for row in document["two_level"]:
        tree = trees.setdefault((row["capture"], row["buffer"]), {})
        leaves = tree.setdefault(_level1(row), [])
        if row["level2"] is not None:
            leaves.append(_level2(row, contexts.get((row["capture"], row["context"]))))
    if not trees:
        return []
    parts: list[Part] = [Line(""), Line("What is mapped at the end of the trace", "bold")]
    for (capture, number), tree in list(trees.items())[:_LEVELS_SHOWN]:
        buffer = buffers.get((capture, number))
        mark = f"[{capture}] " if several else ""
        told = ""
        if buffer is not None:
            told = f" ino {buffer['ino']}, {size(buffer['size'])}, {buffer['exporter']}"
        parts.append(Line(safe(f"{mark}buffer {number}{told}")[:WIDTH]))
        for level1, leaves in tree.items():
            parts.append(Line(safe(f"  level 1  {level1}")[:WIDTH]))
            parts += [Line(safe(f"    level 2  {leaf}")[:WIDTH]) for leaf in leaves]
    return parts


def _level1(row: Row) -> str:
    one = row["level1"]
    if one is None:
        return f"{row['device'] or 'no device'}: not mapped"
    through = one["domain_type"] or "direct"
    segments = f"{one['segments']} segment" + ("" if one["segments"] == 1 else "s")
    return f"{row['device']}: {one['address']:#x}, {size(one['size'])} in {segments}, {through}"


def _level2(row: Row, context: Row | None) -> str:
    one = row["level2"]
    owner = ""
    if context is not None and context["pid"]:
        owner = f" of {context['comm'] or '?'}/{context['pid']}"
    kind = context["kind"] if context is not None else "context"
    source = "nested" if row["nested"] else f"from {row['source']}"
    return (
        f"{kind} {row['context']}{owner}: {one['address']:#x}, {size(one['size'])} at offset "
        f"{one['offset']:#x}, {source}"
    )
