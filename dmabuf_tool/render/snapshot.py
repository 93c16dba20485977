# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dashboard of a live trace shows, taken from the model a few times a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.model.model import Model
from dmabuf_tool.model.objects import Buffer
from dmabuf_tool.model.ranges import Range
from dmabuf_tool.render.levels import context_label
from dmabuf_tool.render.live import BufferRow, DeviceRow, LevelRow, Snapshot

_MOST_ROWS: Final = 64


@dataclass(slots=True)
class Rates:
    """Remembers counters from one snapshot to the next, to give rates."""

    _before: dict[str, tuple[float, float]] = field(default_factory=dict)

    def rate(self, name: str, value: float, now_s: float) -> float:
        """Growth per second since the last call of this name; 0 at the first."""
        then, old = self._before.get(name, (now_s, value))
        self._before[name] = (now_s, value)
        return (value - old) / (now_s - then) if now_s > then else 0.0


def snapshot(
    model: Model,
    findings: Sequence[Mapping[str, Any]],
    rates: Rates,
    *,
    elapsed_s: float,
    now_ns: int,
    events: int,
    notes: Sequence[str] = (),
    recording: str = "",
) -> Snapshot:
    """The state now; `elapsed_s` since the start of the trace, `events` seen in it."""
    live = [buffer for buffer in model.registry.buffers.values() if not buffer.released_ns]
    counts = model.registry.device_counts.rows
    maps = int(counts["maps"].sum())
    return Snapshot(
        elapsed_s=elapsed_s,
        now_ns=now_ns,
        events=events,
        event_rate=rates.rate("events", events, elapsed_s),
        map_rate=rates.rate("maps", maps, elapsed_s),
        live_buffers=len(live),
        live_bytes=sum(buffer.size for buffer in live),
        recording=recording,
        losses=model.losses,
        notes=notes,
        findings=findings,
        devices=_devices(model, rates, elapsed_s),
        levels=_levels(model),
        buffers=_buffers(model, live),
    )


def _devices(model: Model, rates: Rates, now_s: float) -> list[DeviceRow]:
    """Devices that attached, the busiest first."""
    registry = model.registry
    attached: dict[int, int] = {}
    for attachment in registry.attachments.values():
        if not attachment.detached_ns and not attachment.result:
            attached[attachment.device] = attached.get(attachment.device, 0) + 1
    rows = []
    for device in registry.devices.values():
        if not device.attachments:
            continue
        counts = registry.device_counts.rows[registry.device_counts.position(device.id)]
        domain = registry.domains.get(device.domain)
        limits = device.limits
        row = DeviceRow(
            name=device.name,
            driver=device.driver,
            mask_bits=limits.dma_mask.bit_length() if limits and limits.dma_mask else None,
            domain=(domain.type_name or "") if domain else "",
            attached=attached.get(device.id, 0),
            maps=int(counts["maps"]),
            map_rate=rates.rate(f"maps {device.id}", int(counts["maps"]), now_s),
            byte_rate=rates.rate(f"bytes {device.id}", int(counts["bytes"]), now_s),
            failed=int(counts["failed_maps"]),
            bounced=int(counts["bounced_bytes"]),
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.map_rate, -row.maps, row.name))[:_MOST_ROWS]


def _levels(model: Model) -> list[LevelRow]:
    """Live level-1 mappings, the newest first, each with what is on top of it; those with level 2
    come before the others."""
    live = model.mappings.live
    rows = live.live()[::-1]
    linked = np.isin(rows["id"], model.levels.linked())
    rows = rows.take(np.argsort(~linked, kind="stable")[:_MOST_ROWS])
    out: list[LevelRow] = []
    for row in rows:
        one = _level1(model, row)
        found = model.levels.on_top(int(row["id"]))
        ranges = sorted(found, key=lambda part: (part.context, part.start))[:_MOST_ROWS]
        out += [_with_level2(model, one, part) for part in ranges] or [one]
        if len(out) >= _MOST_ROWS:
            break
    return out


def _level1(model: Model, row: np.void) -> LevelRow:
    registry = model.registry
    device = registry.devices.get(int(row["device"]))
    domain = registry.domains.get(int(row["domain"]))
    return LevelRow(
        buffer=f"#{row['buffer']}",
        size=int(row["size"]),
        device=device.name if device else "?",
        domain=(domain.type_name or "") if domain else "direct",
        address=int(row["address"]),
        segments=int(row["nents"]),
    )


def _with_level2(model: Model, row: LevelRow, one: Range) -> LevelRow:
    context = model.levels.contexts.find(one.context)
    source = "nested" if model.levels.is_nested(one) else SOURCES[one.source]
    label = context_label(context) if context is not None else f"context {one.context}"
    return replace(row, size=one.size, context=label, context_address=one.start, source=source)


def _buffers(model: Model, live: Sequence[Buffer]) -> list[BufferRow]:
    """Live buffers, the largest first."""
    registry = model.registry
    out = []
    for buffer in sorted(live, key=lambda buffer: -buffer.size)[:_MOST_ROWS]:
        counts = registry.counts_of(buffer.id)
        process = model.processes.by_tgid.get(buffer.tgid)
        devices = (registry.devices.get(number) for number in sorted(buffer.devices))
        out.append(
            BufferRow(
                buffer=_label(buffer),
                ino=buffer.ino,
                exporter=buffer.exporter,
                size=buffer.size,
                name=buffer.name,
                process=f"{process.comm}/{process.tgid}" if process else "",
                devices=[device.name for device in devices if device is not None],
                maps=int(counts["maps"]) if counts is not None else 0,
            )
        )
    return out


def _label(buffer: Buffer) -> str:
    return f"#{buffer.id}"
