# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of `report`, drawn from its document: captures, findings first, then tables.

Lines are at most WIDTH cells; names from outside are made safe, here for findings and in
render/table.py for cells.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from dmabuf_tool.kernel.text import safe, size
from dmabuf_tool.render.table import Cell, Column, Table

WIDTH: Final = 98
_INDENT: Final = "         "
TOP: Final = 12
"""Rows of a table nobody asked for by --by."""

SHOWN: Final = {"error": 20, "warning": 20, "info": 3}
"""Causes of one finding that are told, by severity, the worst first."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, already safe, with a style for terminals ("" for none)."""

    text: str
    style: str = ""


Part = Line | Table
STYLES: Final = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def report(document: Mapping[str, Any], by: Sequence[str], width: int = WIDTH) -> list[Part]:
    """The whole report in lines of `width` cells at most.

    Without `by`: devices, and the buffers most was mapped of.
    """
    write = _Writer(max(40, min(width, WIDTH)))
    parts: list[Part] = [*write.captures(document), Line("")]
    parts += write.findings(document)
    for name in by or ("device", "buffer"):
        parts.append(Line(""))
        parts += _by(document, name, None if by else TOP)
    return parts


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the parts that are sentences."""

    _width: int

    def captures(self, document: Mapping[str, Any]) -> list[Line]:
        lines = []
        several = len(document["captures"]) > 1
        for index, capture in enumerate(document["captures"]):
            seconds = max(0, capture["end_ns"] - capture["start_ns"]) / 1e9
            lost = f"{capture['lost']} lost" if capture["lost"] else "none lost"
            mark = f"[{index}] " if several else ""
            lines += self._wrap(
                f"{mark}{capture['file']}: {capture['host']}, kernel {capture['kernel']}, "
                f"{seconds:.1f} s, {capture['events']} events, {lost}",
                style="bold",
            )
            for note in capture["notes"]:
                lines += self._wrap(f"note: {note}", style="yellow")
            if capture["withheld"]:
                names = ", ".join(capture["withheld"])
                lines += self._wrap(
                    f"note: not told, as lost events could fake it: {names}", style="yellow"
                )
        losses = {name: count for name, count in document["losses"].items() if count}
        if losses:
            words = ", ".join(f"{count} {name}" for name, count in losses.items())
            lines += self._wrap(f"lost: {words}; what follows may be incomplete", style="bold red")
        return lines

    def findings(self, document: Mapping[str, Any]) -> list[Line]:
        findings = sorted(document["findings"], key=_rank)
        if not findings:
            return [Line("No findings.", "green")]
        lines = []
        starts = [capture["start_ns"] for capture in document["captures"]]
        for (_, severity, slug), same in groupby(findings, _rank):
            causes = list(same)
            for finding in causes[: SHOWN[severity]]:
                lines += self._finding(finding, starts)
            more = len(causes) - SHOWN[severity]
            if more > 0:
                text = f"{severity:<8} {slug}: {more} more causes, --only {slug} --json has all"
                lines.append(Line(text, STYLES[severity]))
        return lines

    def _finding(self, finding: Row, starts: Sequence[int]) -> list[Line]:
        mark = f"[{finding['capture']}] " if len(starts) > 1 else ""
        times = f" x{finding['count']}" if finding["count"] > 1 else ""
        head = f"{finding['severity']:<8} {mark}{finding['id']}{times}"
        about = _about(finding, starts[finding["capture"]])
        return [
            Line(safe(head), STYLES[finding["severity"]]),
            *self._wrap(finding["title"], _INDENT),
            *self._wrap(about, _INDENT, style="dim"),
            *self._wrap(f"-> {finding['advice']}", _INDENT, hang="   "),
        ]

    def _wrap(self, text: str, indent: str = "", *, hang: str = "", style: str = "") -> list[Line]:
        lines = textwrap.wrap(
            safe(text),
            self._width,
            initial_indent=indent,
            subsequent_indent=indent + hang,
            break_on_hyphens=False,
        )
        return [Line(line, style) for line in lines]


def _rank(finding: Row) -> tuple[int, str, str]:
    severity = finding["severity"]
    return (tuple(SHOWN).index(severity), severity, finding["id"])


def _about(finding: Row, start_ns: int) -> str:
    """Whom a finding is about, and when."""
    words = []
    if buffer := finding["buffer"]:
        name = f" {buffer['name']}" if buffer["name"] else ""
        words.append(
            f"buffer {buffer['id']}{name} (ino {buffer['ino']}, {buffer['exporter'] or 'unknown'}, "
            f"{size(buffer['size'])})"
        )
    if device := finding["device"]:
        driver = f" ({device['driver']})" if device["driver"] else ""
        words.append(f"device {device['name'] or device['id']}{driver}")
    if context := finding["context"]:
        words.append(f"domain {context['id']} ({context['kind'] or 'unknown type'})")
    if process := finding["process"]:
        words.append(f"process {process['comm'] or '?'} (pid {process['pid']})")
    first, last = ((finding[key] - start_ns) / 1e9 for key in ("first_ns", "last_ns"))
    when = f"at {first:.3f} s" if finding["count"] == 1 else f"from {first:.3f} to {last:.3f} s"
    return ", ".join([*words, when])


# Tables: what a column is called, where it comes from, and how it is written.

_Write = Callable[[Row], Cell]


def _text(key: str) -> _Write:
    return lambda row: "-" if row[key] in (None, "") else str(row[key])


def _size(key: str) -> _Write:
    return lambda row: "-" if row[key] is None else size(row[key])


def _hex(key: str) -> _Write:
    return lambda row: "-" if not row[key] else f"{row[key]:#x}"


def _names(key: str) -> _Write:
    def write(row: Row) -> Cell:
        names = row[key]
        return " ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "") or "-"

    return write


def _people(row: Row) -> Cell:
    names = [f"{one['comm'] or '?'}/{one['pid']}" for one in row["processes"]]
    return _names("names")({"names": names})


def _part(key: str, inner: str, write: Callable[[Any], str]) -> _Write:
    def cell(row: Row) -> Cell:
        value = row[key][inner] if row[key] is not None else None
        return "-" if value is None else write(value)

    return cell


def _ended(row: Row) -> Cell:
    return f"{(row['ended_ns'] - row['start_ns']) / 1e9:.3f} s"


def _source(row: Row) -> Cell:
    return "nested" if row["nested"] else row["source"] or "-"


def _segment(row: Row) -> Cell:
    if row["max_segment_size"] is None:
        return "-"
    return size(row["max_segment_size"]) + ("" if row["max_segment_size_declared"] else "*")


def _number(name: str, key: str, wide: int, description: str) -> tuple[Column, _Write]:
    return Column(name, key, wide, description, right=True), _text(key)


_TABLES: Final[dict[str, tuple[str, str, list[tuple[Column, _Write]]]]] = {
    "device": (
        "devices",
        "Devices (* default, not declared)",
        [
            (Column("DEVICE", "name", 18, "name of the device"), _text("name")),
            (Column("DRIVER", "driver", 14, "its driver"), _text("driver")),
            (Column("MASK", "dma_mask", 18, "DMA mask", right=True), _hex("dma_mask")),
            (Column("MAXSEG", "max_segment_size", 11, "max segment", right=True), _segment),
            (Column("DOMAIN", "domain_type", 9, "type of its domain"), _text("domain_type")),
            _number("ATT", "attachments", 6, "attachments made"),
            _number("MAPS", "maps", 8, "maps that worked"),
            _number("FAILED", "failed_maps", 6, "maps that failed"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), _size("bytes")),
        ],
    ),
    "buffer": (
        "buffers",
        "Buffers",
        [
            _number("ID", "id", 6, "id in the capture"),
            _number("INO", "ino", 8, "inode number"),
            (Column("SIZE", "size", 9, "size", right=True), _size("size")),
            (Column("EXPORTER", "exporter", 12, "who allocated it"), _text("exporter")),
            (Column("NAME", "name", 10, "its name"), _text("name")),
            _number("ATT", "attachments", 5, "attachments made"),
            _number("NOW", "attached_now", 4, "attached at the end"),
            _number("MAPS", "maps", 8, "maps that worked"),
            (Column("DEVICES", "devices", 14, "who attached"), _names("devices")),
            (Column("PROCESSES", "processes", 14, "who used it"), _people),
        ],
    ),
    "process": (
        "processes",
        "Processes",
        [
            _number("PID", "pid", 8, "process id"),
            (Column("COMM", "comm", 16, "its name"), _text("comm")),
            _number("EVENTS", "events", 10, "what it did"),
            _number("MAPS", "maps", 10, "maps that worked"),
            _number("FAILED", "failed_maps", 6, "maps that failed"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), _size("bytes")),
        ],
    ),
    "exporter": (
        "exporters",
        "Exporters",
        [
            (Column("EXPORTER", "exporter", 24, "who allocated"), _text("exporter")),
            _number("BUFFERS", "buffers", 8, "buffers seen"),
            _number("LIVE", "live", 8, "not released"),
            (Column("SIZE", "size", 10, "of all buffers", right=True), _size("size")),
            _number("ATT", "attachments", 8, "attachments made"),
            _number("MAPS", "maps", 8, "maps that worked"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), _size("bytes")),
        ],
    ),
    "context": (
        "contexts",
        "Contexts",
        [
            _number("ID", "id", 6, "id in the capture"),
            (Column("KIND", "kind", 12, "what it is"), _text("kind")),
            (Column("DEVICE", "device", 20, "whose"), _text("device")),
            _number("PID", "pid", 8, "owner"),
            (Column("COMM", "comm", 16, "its name"), _text("comm")),
            _number("MAPPINGS", "mappings", 10, "mappings made"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), _size("bytes")),
        ],
    ),
}

_TWO_LEVEL: Final[list[tuple[Column, _Write]]] = [
    _number("BUFFER", "buffer", 6, "id of the buffer"),
    (Column("DEVICE", "device", 16, "whose level 1"), _text("device")),
    (Column("DOMAIN", "level1", 9, "type of its domain"), _part("level1", "domain_type", str)),
    (
        Column("LEVEL 1", "level1", 14, "DMA address of the mapping", right=True),
        _part("level1", "address", hex),
    ),
    _number("CONTEXT", "context", 7, "whose addresses level 2 are"),
    (
        Column("LEVEL 2", "level2", 14, "address in the context", right=True),
        _part("level2", "address", hex),
    ),
    (Column("SIZE", "level2", 9, "of the range", right=True), _part("level2", "size", size)),
    (Column("SOURCE", "source", 11, "what feeds level 2; nested: translated again"), _source),
]
"""The two-level table, which --by context and --by buffer end with."""

_ENDED: Final[list[tuple[Column, _Write]]] = [
    (Column("ENDED", "ended_ns", 9, "since the start of the trace", right=True), _ended),
]

BY: Final = tuple(_TABLES)
"""What --by takes."""


def _by(document: Mapping[str, Any], name: str, top: int | None) -> list[Part]:
    """One table with its heading; the `top` rows with most bytes, or all."""
    key, title, columns = _TABLES[name]
    rows = exporters(document["buffers"]) if name == "exporter" else list(document[key])
    left = 0
    if top is not None and len(rows) > top:
        left = len(rows) - top
        rows = sorted(rows, key=lambda row: (-row["bytes"], row["capture"], row["id"]))[:top]
    several = len(document["captures"]) > 1
    if several:
        columns = [_number("CAP", "capture", 3, "index of the capture"), *columns]
    cells = [[write(row) for _, write in columns] for row in rows]
    parts: list[Part] = [
        Line(title, "bold"),
        Table([column for column, _ in columns], cells, empty="none"),
    ]
    if name == "buffer" and top is None:
        parts += [Line(safe(text)) for row in rows if (text := _union(row, several))]
    if name == "context":
        parts += _levels(document, several)
    if name == "buffer" and top is None:
        parts += _chains(document, several)
    if left:
        parts.append(Line(f"and {left} more: --by {name} shows all", "dim"))
    return parts


_LEVELS_SHOWN: Final = 1000
"""Rows of the two-level table in text; JSON has all."""
_ENDED_SHOWN: Final = 20
"""And of ranges that ended."""


def _levels(document: Mapping[str, Any], several: bool) -> list[Part]:
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


def _level_table(
    title: str, rows: Sequence[Row], columns: list[tuple[Column, _Write]], several: bool
) -> list[Part]:
    if several:
        columns = [_number("CAP", "capture", 3, "index of the capture"), *columns]
    cells = [[write(row) for _, write in columns] for row in rows[:_LEVELS_SHOWN]]
    parts: list[Part] = [
        Line(""),
        Line(title, "bold"),
        Table([column for column, _ in columns], cells, empty="no level 2"),
    ]
    if len(rows) > _LEVELS_SHOWN:
        parts.append(Line(f"and {len(rows) - _LEVELS_SHOWN} more: --format json has all", "dim"))
    return parts


def _chains(document: Mapping[str, Any], several: bool) -> list[Part]:
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


def _union(buffer: Row, several: bool) -> str:
    """What the devices attached to a buffer take together, if anybody limits anything."""
    found = buffer["union"]
    if found is None:
        return ""
    words = []
    if found["max_segment_size"]:
        words.append(f"{size(found['max_segment_size'])} a segment ({found['segment_size_of']})")
    if found["max_segment_count"]:
        words.append(f"{found['max_segment_count']} segments ({found['count_of']})")
    if found["segment_boundary_mask"]:
        devices = ", ".join(sorted(set(found["boundary_of"])))
        words.append(f"boundary {found['segment_boundary_mask']:#x} ({devices})")
    if not words:
        return ""
    mark = f"[{buffer['capture']}] " if several else ""
    ends = "" if found["serves"] else "; NO layout serves all"
    return f"{mark}buffer {buffer['id']}, all attached: {', '.join(words)}{ends}"[:WIDTH]


def exporters(buffers: Iterable[Row]) -> list[dict[str, Any]]:
    """Buffers by capture and exporter, most bytes mapped first."""
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for buffer in buffers:
        groups[buffer["capture"], buffer["exporter"]].append(buffer)
    rows = [
        {
            "capture": capture,
            "exporter": exporter,
            "buffers": len(rows),
            "live": sum(not row["released"] for row in rows),
            **{
                key: sum(row[key] for row in rows)
                for key in ("size", "attachments", "maps", "bytes")
            },
        }
        for (capture, exporter), rows in groups.items()
    ]
    return sorted(rows, key=lambda row: (row["capture"], -row["bytes"], row["exporter"]))
