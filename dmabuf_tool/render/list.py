# SPDX-License-Identifier: GPL-2.0-or-later
"""The dma-bufs that exist now, by buffer, process, device or exporter; and as JSON.

"?" marks what could not be read, "-" what is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from dmabuf_tool.kernel.inventory import Buffer, Holder, Inventory
from dmabuf_tool.kernel.machine import Machine
from dmabuf_tool.kernel.text import size
from dmabuf_tool.render.table import Cell, Column, Part, Table

SCHEMA: Final = "dmabuf-tool/list/1"

_FDS_SHOWN: Final = 4

_SIZE: Final = Column("SIZE", "size", 10, "Size of the buffer", "bytes", right=True)
_BYTES: Final = Column("BYTES", "bytes", 10, "Their sizes added up", "bytes", right=True)
_COUNT: Final = Column("BUFFERS", "buffers", 7, "Buffers", right=True)

COLUMNS: Final = {
    "buffer": (
        Column("INO", "ino", 6, "Inode number, which is never reused", right=True),
        _SIZE,
        Column("REFS", "count", 5, "References: descriptors, mappings, drivers", right=True),
        Column("EXPORTER", "exporter", 14, "Who allocated it"),
        Column("NAME", "name", 12, "Name given by a process"),
        Column("DEVICES", "devices", 14, "Attached devices"),
        Column("HELD BY", "processes", 18, "Processes with descriptors or mappings"),
    ),
    "process": (
        Column("PID", "pid", 7, "Process", right=True),
        Column("COMMAND", "comm", 16, "Its name"),
        _COUNT,
        _BYTES,
        Column("FDS", "fds", 6, "Descriptors of buffers", right=True),
        Column("MAPPED", "mapped", 10, "Length of its mappings", "bytes", right=True),
        Column("DRM CLIENTS", "drm", 28, "Its open DRM files"),
    ),
    "device": (
        Column("DEVICE", "device", 24, "Attached device"),
        _COUNT,
        Column("ATTACHMENTS", "attachments", 11, "Attachments", right=True),
        _BYTES,
    ),
    "exporter": (
        Column("EXPORTER", "exporter", 24, "Who allocated them"),
        _COUNT,
        _BYTES,
        Column("LARGEST", "largest", 10, "The largest of them", "bytes", right=True),
    ),
}


def page(inventory: Inventory, by: str = "buffer") -> list[Part]:
    """Make the page: one table and the footer. `by` is a key of COLUMNS."""
    rows = _ROWS[by](inventory)
    # Without bufinfo "none" cannot be said.
    empty = "None." if inventory.buffers_complete else "None that can be seen."
    return [Table(COLUMNS[by], rows, empty), "", *footer(inventory)]


def document(inventory: Inventory, machine: Machine) -> dict[str, Any]:
    """Make the JSON document; null is what could not be read. Documented in the manual."""
    buffers = inventory.buffers
    return {
        "schema": SCHEMA,
        "host": machine.host,
        "kernel": machine.kernel,
        "boot_id": machine.boot_id,
        "time_ns": inventory.time_ns,
        "sources": {
            source.name: {"status": source.status, "detail": source.detail}
            for source in inventory.sources
        },
        "buffers": [_object(buffer) for buffer in buffers],
        "drm_clients": [
            {"pid": pid, "comm": comm, **asdict(client)} for pid, comm, client in inventory.clients
        ],
        "totals": {
            "buffers": len(buffers),
            "bytes": _bytes(buffers),
            "attachments": _attachments(inventory),
            "processes": len({holder.pid for buffer in buffers for holder in buffer.holders}),
        },
    }


def footer(inventory: Inventory) -> list[str]:
    """Write the totals, and a line for each source that did not tell all."""
    buffers = inventory.buffers
    attachments = _attachments(inventory)
    devices = {name for buffer in buffers for name in buffer.devices or ()}
    holders = {holder.pid for buffer in buffers for holder in buffer.holders}
    total = f"{_plural(len(buffers), 'buffer')}, {size(_bytes(buffers))}"
    if attachments is not None:
        total += f"; {_plural(attachments, 'attachment')}"
        total += f" to {_plural(len(devices), 'device')}" if devices else ""
    lines = [f"{total}; held by {_plural(len(holders), 'process', 'processes')}."]
    sources = {source.name: source for source in inventory.sources}
    if not inventory.buffers_complete:
        lines += [
            f"Attachments are unknown: {sources['bufinfo'].detail}.",
            "Buffers that only the kernel holds are missing.",
        ]
    elif sources["bufinfo"].status != "ok":
        lines.append(f"Read by the BPF iterator: {sources['bufinfo'].detail}.")
    if not inventory.holders_complete:
        lines.append(f"Holders may be missing: {sources['processes'].detail}.")
    return lines


def _object(buffer: Buffer) -> dict[str, Any]:
    """Make one buffer's JSON object."""
    return {
        "ino": buffer.ino,
        "size": buffer.size,
        "exporter": buffer.exporter,
        "name": buffer.name,
        "count": buffer.count,
        "other_refs": buffer.other_refs,
        "devices": None if buffer.devices is None else list(buffer.devices),
        "processes": [
            {
                "pid": holder.pid,
                "comm": holder.comm,
                "fds": list(holder.fds),
                "maps": holder.maps,
                "mapped": holder.mapped,
            }
            for holder in buffer.holders
        ],
    }


def _bytes(buffers: Sequence[Buffer]) -> int:
    """Add up the sizes that are known."""
    return sum(buffer.size or 0 for buffer in buffers)


def _attachments(inventory: Inventory) -> int | None:
    """Count attachments; None where bufinfo was not read."""
    if not inventory.buffers_complete:
        return None
    return sum(len(buffer.devices or ()) for buffer in inventory.buffers)


def _plural(number: int, one: str, many: str = "") -> str:
    """Write "1 buffer", "2 buffers"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _size(number: int | None) -> str:
    """Write a size that may be unknown."""
    return "?" if number is None else size(number)


def _devices(devices: tuple[str, ...] | None) -> Cell:
    """Write the attached devices, each once."""
    if devices is None:
        return "?"
    return tuple(
        name if times == 1 else f"{name} x{times}" for name, times in Counter(devices).items()
    ) or ("-",)


def _holders(holders: tuple[Holder, ...], complete: bool) -> Cell:
    """Write who holds a buffer, one process a line."""
    if not holders:
        return "(kernel only)" if complete else "?"
    return tuple(f"{holder.comm}[{holder.pid}] {_how(holder)}" for holder in holders)


def _how(holder: Holder) -> str:
    """Write by what a process holds a buffer."""
    ways = []
    if holder.fds:
        more = len(holder.fds) - _FDS_SHOWN
        shown = ",".join(map(str, holder.fds[:_FDS_SHOWN]))
        ways.append(f"fd={shown}" + (f",+{more}" if more > 0 else ""))
    if holder.maps:
        ways.append(f"maps={holder.maps}")
    return " ".join(ways)


def _by_buffer(inventory: Inventory) -> list[list[Cell]]:
    return [
        [
            str(buffer.ino),
            _size(buffer.size),
            "?" if buffer.count is None else str(buffer.count),
            buffer.exporter or "?",
            buffer.name or "-",
            _devices(buffer.devices),
            _holders(buffer.holders, inventory.holders_complete),
        ]
        for buffer in inventory.buffers
    ]


def _by_process(inventory: Inventory) -> list[list[Cell]]:
    held: dict[int, list[tuple[Buffer, Holder]]] = {}
    names = {pid: comm for pid, comm, _ in inventory.clients}
    for buffer in inventory.buffers:
        for holder in buffer.holders:
            held.setdefault(holder.pid, []).append((buffer, holder))
            names[holder.pid] = holder.comm
    rows: list[tuple[int, list[Cell]]] = []
    for pid, comm in names.items():
        pairs = held.get(pid, [])
        total = _bytes([buffer for buffer, _ in pairs])
        clients = tuple(
            f"{client.driver} {client.device or ''}".rstrip()
            + ("" if client.client is None else f" #{client.client}")
            for owner, _, client in inventory.clients
            if owner == pid
        )
        row: list[Cell] = [
            str(pid),
            comm,
            str(len(pairs)),
            size(total),
            str(sum(len(holder.fds) for _, holder in pairs)),
            size(sum(holder.mapped for _, holder in pairs)),
            tuple(dict.fromkeys(clients)) or "-",
        ]
        rows.append((total, row))
    return _largest_first(rows)


def _by_device(inventory: Inventory) -> list[list[Cell]]:
    attached: dict[str, list[Buffer]] = {}
    for buffer in inventory.buffers:
        for name in buffer.devices or ():
            attached.setdefault(name, []).append(buffer)
    rows: list[tuple[int, list[Cell]]] = []
    for name, buffers in attached.items():
        once = {buffer.ino: buffer for buffer in buffers}
        total = _bytes(list(once.values()))
        rows.append((total, [name, str(len(once)), str(len(buffers)), size(total)]))
    return _largest_first(rows)


def _by_exporter(inventory: Inventory) -> list[list[Cell]]:
    exported: dict[str, list[Buffer]] = {}
    for buffer in inventory.buffers:
        exported.setdefault(buffer.exporter or "?", []).append(buffer)
    rows: list[tuple[int, list[Cell]]] = []
    for name, buffers in exported.items():
        total = _bytes(buffers)
        largest = max(buffer.size or 0 for buffer in buffers)
        rows.append((total, [name, str(len(buffers)), size(total), size(largest)]))
    return _largest_first(rows)


def _largest_first(rows: list[tuple[int, list[Cell]]]) -> list[list[Cell]]:
    """Sort rows by their bytes, the largest first."""
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


_ROWS: Final[dict[str, Callable[[Inventory], list[list[Cell]]]]] = {
    "buffer": _by_buffer,
    "process": _by_process,
    "device": _by_device,
    "exporter": _by_exporter,
}
