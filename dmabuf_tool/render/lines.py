# SPDX-License-Identifier: GPL-2.0-or-later
"""`trace` in a pipe: one line an event, under the columns of COLUMNS.

Made for speed: a batch becomes columns of Python values once, a line is one format of cells that
were padded before. Empty cells are "-", so that awk can count columns (a buffer is three words).
A stream gives the same lines however it is cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.kernel.text import decode, pad, safe
from dmabuf_tool.render.details import details
from dmabuf_tool.render.faults import Attribution
from dmabuf_tool.render.names import (
    EVENT_NAMES,
    SELF_DESCRIBING,
    Buffer,
    Names,
    kinds_told,
    unknown_buffer,
)
from dmabuf_tool.render.table import Column
from dmabuf_tool.schema import Batch, Events, Flag, Kind, Losses

COLUMNS: Final = (
    Column("TIME", "time", 10, "since the start of the trace", "s", right=True),
    Column("PROCESS", "process", 12, "thread name and process id"),
    Column("EVENT", "event", 7, "what happened"),
    Column("BUFFER", "buffer", 11, "number in this trace, and inode"),
    Column("EXPORTER", "exporter", 8, "who allocated the buffer"),
    Column("DEVICE", "device", 12, "the importing device"),
    Column("DIR", "direction", 4, "DMA direction: to or from the device, bidi, none"),
    Column("SIZE", "size", 4, "of the buffer, or of the range", "B, K, M, G", right=True),
    Column("NENTS", "nents", 5, "DMA entries (/CPU entries if they differ)", right=True),
    Column("ADDRESS", "address", 10, "DMA address of the first entry, or IOVA", right=True),
    Column("RESULT", "result", 0, "errno, duration, what is special"),
)

_CACHE_LIMIT: Final = 65536
_LONG_RELEASE_NS: Final = 10_000_000
"""Releases that return sooner get no second line."""
_SHOWN: Final = np.isin(np.arange(max(Kind) + 2), list(EVENT_NAMES))
_EVENT_CELLS: Final = {int(kind): pad(name, COLUMNS[2].width) for kind, name in EVENT_NAMES.items()}


def header_line() -> str:
    """The first line: the names of the columns."""
    return " ".join(
        pad(column.name, column.width, right=column.right) for column in COLUMNS
    ).rstrip()


class LineRenderer:
    """Events as lines. `start_ns` is the CLOCK_MONOTONIC of the trace's start.

    `failed`: only events with an errno. `stacks`: call stacks below the lines. `verbose`: also
    what repeats: each IOMMU mapping inside a dma-buf call, the limits of a device that did not
    change, the return of a release that was quick.
    """

    def __init__(
        self, start_ns: int, *, failed: bool = False, stacks: bool = False, verbose: bool = False
    ) -> None:
        self._start_ns = start_ns
        self._failed = failed
        self._show_stacks = stacks
        self._verbose = verbose
        self._names = Names()
        self._stacks: dict[int, tuple[str, ...]] = {}
        self._losses = Losses()
        self._limits: dict[int, str] = {}
        self._process_cells: dict[tuple[bytes, int], str] = {}
        self._buffer_cells: dict[int, str] = {}
        self._device_cells: dict[int, str] = {}

    def render(
        self,
        batch: Batch,
        shown: NDArray[np.bool_] | None = None,
        faults: Mapping[int, Attribution] = MappingProxyType({}),
    ) -> str:
        """The lines of a batch, each with its line break.

        `shown` (n,) chooses events; those it leaves out still introduce names. `faults`: whose
        address each was, by its index; of a flood those that were looked up have a line.
        """
        if self._show_stacks:
            self._stacks.update(batch.stacks)
        wanted = self._wanted(batch.events, shown)
        wanted[[index for index, one in faults.items() if not one.looked_up]] = False
        lines = list(self._lines(batch.events, wanted, faults))
        if batch.losses != self._losses:
            self._losses = batch.losses
            lines.append(lost_line(batch.losses))
        return "".join(f"{line}\n" for line in lines)

    def _wanted(self, events: Events, shown: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Which events get a line, as far as one event can tell."""
        kinds = events["kind"]
        wanted: NDArray[np.bool_] = _SHOWN[np.minimum(kinds, len(_SHOWN) - 1)]
        if shown is not None:
            wanted &= shown
        if self._failed:
            wanted &= events["result"] < 0
        if not self._verbose:
            inside = (events["flags"] & Flag.INSIDE) != 0
            wanted &= ~(np.isin(kinds, (Kind.IOMMU_MAP, Kind.IOMMU_UNMAP)) & inside)
            wanted &= (kinds != Kind.RELEASED) | (events["duration_ns"] >= _LONG_RELEASE_NS)
        return wanted

    def _lines(
        self, events: Events, wanted: NDArray[np.bool_], faults: Mapping[int, Attribution]
    ) -> Iterator[str]:
        """Walk the events in order: learn, then join the cells of those that are wanted."""
        names, teaching = self._names, self._names.teaching
        columns = [events[name].tolist() for name in _FIELDS]
        texts = details(events, wanted)
        told = kinds_told(events).tolist()
        for index, (ts, comm, tgid, kind, buffer, device, stack, show, detail) in enumerate(
            zip(*columns, wanted.tolist(), texts, strict=True)
        ):
            if kind in teaching:
                names.learn(events[index])
                self._buffer_cells.pop(buffer, None)
                self._device_cells.pop(device, None)
            if show and not (kind == Kind.DEVICE and self._same_limits(device, detail)):
                seconds = (ts - self._start_ns) / 1e9
                process = self._process_cells.get((comm, tgid)) or self._process(comm, tgid)
                if kind in SELF_DESCRIBING and buffer not in names.buffers:
                    of_buffer = _buffer_cell(buffer, unknown_buffer(events[index]))
                else:
                    of_buffer = self._buffer_cells.get(buffer) or self._buffer(buffer)
                event = _EVENT_CELLS[told[index]]
                if kind == Kind.FAULT and index in faults:
                    fault = faults[index]
                    of_buffer, of_device = self._buffer(fault.buffer), self._device(fault.device)
                    yield (
                        f"{seconds:10.6f} {process} {event} {of_buffer} {of_device} {detail}:"
                        f" {safe(fault.text)}"
                    )
                    continue
                of_device = self._device_cells.get(device) or self._device(device)
                yield f"{seconds:10.6f} {process} {event} {of_buffer} {of_device} {detail}"
                if stack >= 0 and self._show_stacks:
                    yield from (f"{'':11}{safe(frame)}" for frame in self._stacks.get(stack, ()))
            if kind == Kind.RELEASE:
                names.forget(buffer)
                self._buffer_cells.pop(buffer, None)

    def _same_limits(self, device: int, detail: str) -> bool:
        """Whether a device's limits were shown before and are the same."""
        same = self._limits.get(device) == detail
        self._limits[device] = detail
        return same and not self._verbose

    def _process(self, comm: bytes, tgid: int) -> str:
        if len(self._process_cells) > _CACHE_LIMIT:
            self._process_cells.clear()
        cell = pad(f"{safe(decode(comm))}/{tgid}", COLUMNS[1].width)
        self._process_cells[comm, tgid] = cell
        return cell

    def _buffer(self, buffer: int) -> str:
        cell = _buffer_cell(buffer, self._names.buffers.get(buffer, Buffer()))
        self._buffer_cells[buffer] = cell
        return cell

    def _device(self, device: int) -> str:
        known = self._names.devices.get(device)
        name = f"device {device}" if device else "-"
        if known and known.name:
            name = safe(known.name)
        cell = pad(name, COLUMNS[5].width)
        self._device_cells[device] = cell
        return cell


_FIELDS: Final = ("ts_ns", "comm", "tgid", "kind", "buffer", "device", "stack")


def _buffer_cell(number: int, buffer: Buffer) -> str:
    """The cells BUFFER and EXPORTER."""
    words = [f"#{number}"] if number else []
    if buffer.ino:
        words.append(f"(ino {buffer.ino})")
    name = pad(" ".join(words) or "-", COLUMNS[3].width)
    return f"{name} {pad(safe(buffer.exporter) or '-', COLUMNS[4].width)}"


def lost_line(losses: Losses) -> str:
    """What was lost since the start, as a line of its own."""
    return (
        f"lost so far: {losses.events} events, {losses.scatterlists} scatterlist entries, "
        f"{losses.calls} calls, {losses.untracked} untracked objects"
    )
