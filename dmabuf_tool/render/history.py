# SPDX-License-Identifier: GPL-2.0-or-later
"""`report --address`: who had an address, when, for what; and the faults there.

`document` is the JSON, `parts` the text drawn from it: a line a begin, an end and a fault, by time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dmabuf_tool.kernel.text import size
from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.render.findings import buffer_object, context_object, process_object
from dmabuf_tool.render.levels import device_name
from dmabuf_tool.render.report import Capture, capture_object
from dmabuf_tool.render.table import Cell, Column, Table
from dmabuf_tool.rules.fault_attributed import tell

if TYPE_CHECKING:
    from dmabuf_tool.model.history import History, Life
    from dmabuf_tool.model.model import Model

SCHEMA: Final = "dmabuf-tool/address/1"

ADDRESS_KEYS: Final = {
    "schema": "name and version of this document",
    "address": "the address that was asked for",
    "device": "name of the device that was asked for, or null",
    "captures": "one for each FILE, as without --address",
    "history": "mappings of either level that had the address, by capture and begin",
    "faults": "faults in its page",
    "notes": "what may be missing, a list of sentences",
}

HISTORY_KEYS: Final = {
    "level": "1: a DMA address of a device; 2: an address in a context",
    "buffer": "id, ino, exporter, name and size, or null",
    "device": "name of the device",
    "context": "id and kind of the address space: for level 1 the device's domain, null: direct",
    "address": "level 1: first DMA address of the mapping; level 2: start of the range",
    "size": "level 1: of the buffer; level 2: of the range",
    "offset": "of the address in the buffer",
    "level1": "level 2: first DMA address of the level-1 mapping under it, or null",
    "source": "level 2: dma-address, pages or unknown; level 1: null",
    "nested": "level 1 translates what level 2 maps",
    "begun_ns": "when it was mapped; null: before the trace",
    "begun_by": "pid and comm of who mapped it, or null",
    "ended_ns": "when it ended; null: it lived at the end",
    "ended_by": "pid and comm of who ended it, or null",
}

FAULT_KEYS: Final = {
    "ts_ns": "when",
    "device": "name of the device, or null",
    "title": "whose address it was, in one line",
    "evidence": "the numbers it rests on",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A capture, and an address's history in it."""

    capture: Capture
    history: History


def document(asked: Sequence[Asked], address: int, device: str) -> dict[str, Any]:
    """All captures as one document."""
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "address": address,
        "device": device or None,
        "captures": [capture_object(one.capture) for one in asked],
        "history": [],
        "faults": [],
        "notes": [],
    }
    for index, one in enumerate(asked):
        model = one.capture.model
        out["history"] += [{**_life(life, model), "capture": index} for life in one.history.lives]
        for fault in one.history.faults:
            told = tell(model, fault)
            row = {
                "ts_ns": fault.ts_ns,
                "device": device_name(model, fault.device) or None,
                "title": told.title,
                "evidence": dict(told.evidence),
            }
            out["faults"].append({**row, "capture": index})
        out["notes"] += _notes(one)
    return out


def _notes(one: Asked) -> Iterator[str]:
    file, history = one.capture.file, one.history
    if history.more:
        yield f"{file}: {history.more} more mappings had the address"
    if history.cut:
        yield (
            f"{file}: of {history.cut} mappings not all entries are known (--max-segments of the "
            "trace, or lost): they may have had the address too"
        )
    if one.capture.model.losses.events or one.capture.model.losses.calls:
        yield f"{file}: events or calls were lost: maps, ends and faults may be missing"


def _life(life: Life, model: Model) -> dict[str, Any]:
    second = life.level == 2
    return {
        "level": life.level,
        "buffer": buffer_object(model.registry.known_buffer(life.buffer)),
        "device": device_name(model, life.device),
        "context": context_object(life.context, model),
        "address": life.start,
        "size": life.size,
        "offset": life.offset,
        "level1": life.target if second else None,
        "source": SOURCES[life.source] if second else None,
        "nested": life.nested if second else False,
        "begun_ns": life.begun_ns or None,
        "begun_by": process_object(life.begun_by, model),
        "ended_ns": life.ended_ns or None,
        "ended_by": process_object(life.ended_by, model),
    }


_COLUMNS: Final = (
    Column("TIME", "ts_ns", 12, "since the start of the trace", "s", right=True),
    Column("LEVEL", "level", 5, "1 or 2, or fault"),
    Column("DEVICE", "device", 14, "whose address"),
    Column("WHAT", "what", 40, "what happened"),
)


def parts(told: Mapping[str, Any]) -> list[Table | str]:
    """The document as text."""
    of = f" of {told['device']}" if told["device"] else ""
    out: list[Table | str] = []
    several = len(told["captures"]) > 1
    for index, capture in enumerate(told["captures"]):
        start = capture["start_ns"]
        lines = [
            *(row for one in told["history"] if one["capture"] == index
              for row in _lines(one, capture["end_ns"])),
            *((one["ts_ns"], "fault", one["device"] or "-", one["title"])
              for one in told["faults"] if one["capture"] == index),
        ]  # fmt: skip
        # What begins at a time comes after what ended then, and a fault after both.
        lines.sort(key=lambda row: (row[0], row[1]))
        rows: list[Sequence[Cell]] = [
            (f"{(ts - start) / 1e9:.6f}" if ts else "before", level, device, what)
            for ts, level, device, what in lines
        ]
        mark = f"[{index}] " if several else ""
        out.append(f"{mark}{capture['file']}: {capture['host']}, kernel {capture['kernel']}")
        out.append(f"What was mapped at {told['address']:#x}{of}")
        out.append(Table(_COLUMNS, rows, empty="nothing that was traced, and no fault"))
    return out + [f"note: {note}" for note in told["notes"]]


def _lines(one: Mapping[str, Any], now: int) -> Iterator[tuple[int, str, str, str]]:
    """The begin and the end of a mapping: (time, level, device, what)."""
    level, device, buffer = str(one["level"]), one["device"] or "-", one["buffer"]
    what = "a buffer not known"
    if buffer:
        what = f"buffer {buffer['id']} (ino {buffer['ino']}, {buffer['exporter'] or 'unknown'})"
    where = f"{size(one['size'])} at {one['address']:#x}"
    # A range is told as it was when it ended: unmaps may have cut it.
    begin = f", {where}" if one["level"] == 1 else ""
    what += f" + {one['offset']:#x}"
    begin = f"mapped{_by(one['begun_by'])}: {what}{begin}{_through(one)}"
    yield one["begun_ns"] or 0, level, device, begin
    end, lived = one["ended_ns"], ""
    if not end:
        yield now, level, device, f"mapped at the end of the trace: {what}, {where}"
        return
    if one["begun_ns"]:
        lived = f" after {(end - one['begun_ns']) / 1e6:.3f} ms"
    yield end, level, device, f"ended{lived}{_by(one['ended_by'])}: {what}, {where}"


def _through(one: Mapping[str, Any]) -> str:
    context = one["context"]
    space = "no IOMMU domain"
    if context:
        kind = {"unmanaged": "private domain", None: "domain"}.get(context["kind"], context["kind"])
        space = f"{kind} {context['id']}"
    if one["level"] == 1:
        return f", in {space}"
    if one["nested"]:
        return f", in {space}, nested over {one['level1']:#x}"
    over = "" if one["level1"] is None else f" of the mapping at {one['level1']:#x}"
    return f", in {space}, from {one['source']}{over}"


def _by(process: Mapping[str, Any] | None) -> str:
    return f" by {process['comm'] or '?'}/{process['pid']}" if process else ""
