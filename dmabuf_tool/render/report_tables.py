# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the report's text: what --by shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dmabuf_tool.kernel.text import safe, size
from dmabuf_tool.render import report_cells as cells
from dmabuf_tool.render import report_levels
from dmabuf_tool.render.report_cells import WIDTH, Columns, Line, Part, Row
from dmabuf_tool.render.table import Cell, Column


def _people(row: Row) -> Cell:
    names = [f"{one['comm'] or '?'}/{one['pid']}" for one in row["processes"]]
    return cells.names("names")({"names": names})


def _segment(row: Row) -> Cell:
    if row["max_segment_size"] is None:
        return "-"
    return size(row["max_segment_size"]) + ("" if row["max_segment_size_declared"] else "*")


_TABLES: Final[dict[str, tuple[str, str, Columns]]] = {
    "device": (
        "devices",
        "Devices (* default, not declared)",
        [
            (Column("DEVICE", "name", 18, "name of the device"), cells.text("name")),
            (Column("DRIVER", "driver", 14, "its driver"), cells.text("driver")),
            (Column("MASK", "dma_mask", 18, "DMA mask", right=True), cells.in_hex("dma_mask")),
            (Column("MAXSEG", "max_segment_size", 11, "max segment", right=True), _segment),
            (Column("DOMAIN", "domain_type", 9, "type of its domain"), cells.text("domain_type")),
            cells.number("ATT", "attachments", 6, "attachments made"),
            cells.number("MAPS", "maps", 8, "maps that worked"),
            cells.number("FAILED", "failed_maps", 6, "maps that failed"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), cells.in_bytes("bytes")),
        ],
    ),
    "buffer": (
        "buffers",
        "Buffers",
        [
            cells.number("ID", "id", 6, "id in the capture"),
            cells.number("INO", "ino", 8, "inode number"),
            (Column("SIZE", "size", 9, "size", right=True), cells.in_bytes("size")),
            (Column("EXPORTER", "exporter", 12, "who allocated it"), cells.text("exporter")),
            (Column("NAME", "name", 10, "its name"), cells.text("name")),
            cells.number("ATT", "attachments", 5, "attachments made"),
            cells.number("NOW", "attached_now", 4, "attached at the end"),
            cells.number("MAPS", "maps", 8, "maps that worked"),
            (Column("DEVICES", "devices", 14, "who attached"), cells.names("devices")),
            (Column("PROCESSES", "processes", 14, "who used it"), _people),
        ],
    ),
    "process": (
        "processes",
        "Processes",
        [
            cells.number("PID", "pid", 8, "process id"),
            (Column("COMM", "comm", 16, "its name"), cells.text("comm")),
            cells.number("EVENTS", "events", 10, "what it did"),
            cells.number("MAPS", "maps", 10, "maps that worked"),
            cells.number("FAILED", "failed_maps", 6, "maps that failed"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), cells.in_bytes("bytes")),
        ],
    ),
    "exporter": (
        "exporters",
        "Exporters",
        [
            (Column("EXPORTER", "exporter", 24, "who allocated"), cells.text("exporter")),
            cells.number("BUFFERS", "buffers", 8, "buffers seen"),
            cells.number("LIVE", "live", 8, "not released"),
            (Column("SIZE", "size", 10, "of all buffers", right=True), cells.in_bytes("size")),
            cells.number("ATT", "attachments", 8, "attachments made"),
            cells.number("MAPS", "maps", 8, "maps that worked"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), cells.in_bytes("bytes")),
        ],
    ),
    "context": (
        "contexts",
        "Contexts",
        [
            cells.number("ID", "id", 6, "id in the capture"),
            (Column("KIND", "kind", 12, "what it is"), cells.text("kind")),
            (Column("DEVICE", "device", 20, "whose"), cells.text("device")),
            cells.number("PID", "pid", 8, "owner"),
            (Column("COMM", "comm", 16, "its name"), cells.text("comm")),
            cells.number("MAPPINGS", "mappings", 10, "mappings made"),
            (Column("BYTES", "bytes", 10, "bytes mapped", right=True), cells.in_bytes("bytes")),
        ],
    ),
}

BY: Final = tuple(_TABLES)
"""What --by takes."""


def table_by(document: Mapping[str, Any], name: str, top: int | None) -> list[Part]:
    """One table with its heading; the `top` rows with most bytes, or all."""
    key, title, columns = _TABLES[name]
    rows = _exporters(document["buffers"]) if name == "exporter" else list(document[key])
    left = 0
    if top is not None and len(rows) > top:
        left = len(rows) - top
        rows = sorted(rows, key=lambda row: (-row["bytes"], row["capture"], row["id"]))[:top]
    several = len(document["captures"]) > 1
    parts: list[Part] = [
        Line(title, "bold"),
        cells.rows_table(rows, columns, several, empty="none"),
    ]
    if name == "buffer" and top is None:
        parts += [Line(safe(text)) for row in rows if (text := _union(row, several))]
    if name == "context":
        parts += report_levels.at_the_end(document, several)
    if name == "buffer" and top is None:
        parts += report_levels.chains(document, several)
    if left:
        parts.append(Line(f"and {left} more: --by {name} shows all", "dim"))
    return parts


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


def _exporters(buffers: Iterable[Row]) -> list[dict[str, Any]]:
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
