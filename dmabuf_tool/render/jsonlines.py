# SPDX-License-Identifier: GPL-2.0-or-later
"""`trace --format json`: JSON Lines, one object an event, a finding, a loss.

KEYS and PAYLOAD_KEYS are the contract; dmabuf-tool-trace(1) documents them and a test holds the
two together. Keys are only added within a schema version. Every object of a type and event has
all its keys; null is "none" or "not known". Output is ASCII: hostile names are escaped.

A stream gives the same objects however it is cut into batches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.kernel.errnos import errno_name
from dmabuf_tool.kernel.text import decode
from dmabuf_tool.model.contexts import IOMMU
from dmabuf_tool.render.faults import Attribution
from dmabuf_tool.render.names import (
    EVENT_NAMES,
    SELF_DESCRIBING,
    Buffer,
    Device,
    Names,
    kinds_told,
    unknown_buffer,
)
from dmabuf_tool.render.segments import Scatterlists
from dmabuf_tool.schema import (
    DIRECTIONS,
    DOMAIN_TYPE_NAMES,
    PAYLOAD_OF,
    Batch,
    Events,
    Flag,
    Kind,
    Losses,
    view,
)

SCHEMA: Final = "dmabuf-tool/trace/1"

KEYS: Final = {
    "type": '"event"',
    "event": "what happened: the names of the table below",
    "ts_ns": "CLOCK_MONOTONIC, nanoseconds; at return, or at entry of what ends something",
    "duration_ns": "of the call, null: not measured",
    "result": "0 or a negative errno",
    "errno": "its name, null if the result is 0",
    "pid": "process id",
    "tid": "thread id",
    "comm": "name of the thread",
    "buffer": "id of the buffer in this trace",
    "ino": "its inode number",
    "exporter": "who allocated it",
    "name": "its name, if a process gave it one",
    "attachment": "id of the attachment (buffer and device)",
    "mapping": "id of the mapping",
    "device": "name of the device",
    "device_id": "its id in this trace",
    "driver": "its driver",
    "domain": "id of the IOMMU domain, of the event or else of the device",
    "flags": "list of words: the flags of dmabuf-capture(5) in lower case, with -",
    "context": "id of the GPU address space, in context, level2 and fault events",
}
"""The keys of every event, in their order."""

# JSON key, field of the payload's dtype. What stands here under "type" or "direction" is written
# as a name.
PAYLOAD_KEYS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "buf": (("size", "size"),),
    "map": (
        ("size", "size"),
        ("direction", "direction"),
        ("address", "address"),
        ("nents", "nents"),
        ("orig_nents", "orig_nents"),
        ("copied", "copied"),
        ("dma_errno", "dma_errno"),
        ("dma_attrs", "dma_attrs"),
    ),
    "dev": (
        ("dma_mask", "dma_mask"),
        ("coherent_dma_mask", "coherent_dma_mask"),
        ("bus_dma_limit", "bus_dma_limit"),
        ("segment_boundary_mask", "segment_boundary_mask"),
        ("max_segment_size", "max_segment_size"),
        ("min_align_mask", "min_align_mask"),
        ("iommu_group", "attachment"),
    ),
    "dom": (
        ("domain_type", "type"),
        ("iommu_group", "group"),
        ("old_domain", "old_domain"),
        ("pgsize_bitmap", "pgsize_bitmap"),
        ("aperture_start", "aperture_start"),
        ("aperture_end", "aperture_end"),
    ),
    "iommu": (
        ("iova", "iova"),
        ("paddr", "paddr"),
        ("size", "size"),
        ("done", "done"),
        ("prot", "prot"),
        ("calls", "calls"),
    ),
    "l2": (
        ("address", "address"),
        ("size", "size"),
        ("offset", "offset"),
        ("provider", "provider"),
        ("owner", "owner"),
        ("client", "client"),
    ),
}

_NOT_MAPPED: Final = ("address", "nents", "orig_nents", "copied", "dma_errno", "dma_attrs")
NOT_TOLD: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.UNMAP: ("copied", "dma_errno", "dma_attrs"),
    Kind.PIN: ("direction", *_NOT_MAPPED),
    Kind.UNPIN: ("direction", *_NOT_MAPPED),
    Kind.INVALIDATE: ("direction", *_NOT_MAPPED),
    Kind.CPU_BEGIN: _NOT_MAPPED,
    Kind.CPU_END: _NOT_MAPPED,
    Kind.DEVICE_GONE: tuple(key for key, _ in PAYLOAD_KEYS["dev"]),
    Kind.DOMAIN_FREE: tuple(key for key, _ in PAYLOAD_KEYS["dom"]),
    Kind.IOMMU_UNMAP: ("paddr", "prot"),
    Kind.BOUNCE: ("paddr", "done", "prot"),
}
"""Keys of a kind's payload that its events do not fill: null."""

PRIVATE_KEYS: Final = {
    "paddr": "level2-map in a private domain: what it targets, a page or a DMA address",
    "done": "level2-map and level2-unmap in a private domain: bytes really mapped or unmapped",
    "prot": "level2-map in a private domain: IOMMU_READ, IOMMU_WRITE, ... as numbers",
}
"""What the IOMMU API tells of a private domain's maps, and other providers of theirs do not."""

EXTRA_KEYS: Final = {
    **PRIVATE_KEYS,
    "phase": "cpu-access only: begin or end",
    "attribution": "fault only: whose address it was, with the keys below",
    "stack": "with --stacks: list of frames, innermost first; null: none taken",
    "segments": "map, with --segments: list of [dma_address, dma_length], as far as they were "
    "copied; null: not copied, or given before with this mapping (cached)",
}

_NO_GROUP: Final = 0xFFFF_FFFF
_SHOWN: Final = np.isin(np.arange(max(Kind) + 2), list(EVENT_NAMES))
_NAMES: Final = {int(kind): name for kind, name in EVENT_NAMES.items()}
_PHASES: Final = {int(Kind.CPU_BEGIN): "begin", int(Kind.CPU_END): "end"}
_FIELDS: Final = (
    "ts_ns",
    "duration_ns",
    "result",
    "kind",
    "flags",
    "tgid",
    "tid",
    "comm",
    "buffer",
    "attachment",
    "mapping",
    "device",
    "domain",
)


def start_line(facts: Mapping[str, Any]) -> str:
    """The first line: the schema, and facts of the machine and the clocks."""
    return _dump({"type": "start", "schema": SCHEMA, **facts})


def finding_line(finding: Mapping[str, Any]) -> str:
    """A finding as a line."""
    return _dump({"type": "finding", **finding})


def lost_line(losses: Losses) -> str:
    """What was lost since the start, as a line."""
    return _dump({"type": "lost", **asdict(losses)})


class JsonRenderer:
    """Events as JSON Lines. `failed`: only events with an errno.

    `stacks` and `segments` add keys, see EXTRA_KEYS.
    """

    def __init__(
        self, *, failed: bool = False, stacks: bool = False, segments: bool = False
    ) -> None:
        self._failed = failed
        self._stacks: dict[int, tuple[str, ...]] | None = {} if stacks else None
        self._scatterlists = Scatterlists() if segments else None
        self._names = Names()
        self._losses = Losses()
        self._faults: Mapping[int, Attribution] = {}
        self._comms: dict[bytes, str] = {}
        self._flags: dict[int, str] = {}
        self._buffers: dict[int, str] = {}
        self._devices: dict[int, tuple[str, int]] = {}

    def render(
        self,
        batch: Batch,
        shown: NDArray[np.bool_] | None = None,
        faults: Mapping[int, Attribution] = MappingProxyType({}),
    ) -> str:
        """The lines of a batch, each with its line break.

        `shown` (n,) chooses events; those it leaves out still introduce names. `faults`: whose
        address each was, by its index.
        """
        if self._stacks is not None:
            self._stacks.update(batch.stacks)
        if self._scatterlists is not None:
            self._scatterlists.add(batch)
        kinds = batch.events["kind"]
        wanted: NDArray[np.bool_] = _SHOWN[np.minimum(kinds, len(_SHOWN) - 1)]
        if shown is not None:
            wanted &= shown
        if self._failed:
            wanted &= batch.events["result"] < 0
        self._faults = faults
        lines = self._events(batch.events, wanted)
        if batch.losses != self._losses:
            self._losses = batch.losses
            lines.append(lost_line(batch.losses))
        return "".join(lines)

    def _events(self, events: Events, wanted: NDArray[np.bool_]) -> list[str]:
        """Walk the events in order: learn, then join the parts of those that are wanted."""
        names, teaching = self._names, self._names.teaching
        columns = [events[name].tolist() for name in _FIELDS]
        extra = self._stacks is not None or self._scatterlists is not None
        told = kinds_told(events).tolist()
        lines = []
        for index, (row, show, payload) in enumerate(
            zip(zip(*columns, strict=True), wanted.tolist(), _payloads(events, wanted), strict=True)
        ):
            ts, duration, result, kind, flags, tgid, tid, comm, buffer = row[:9]
            attachment, mapping, device, domain = row[9:]
            if kind in teaching:
                names.learn(events[index])
                self._buffers.pop(buffer, None)
                self._devices.pop(device, None)
            if show:
                if kind in SELF_DESCRIBING and buffer not in names.buffers:
                    of_buffer = _buffer_members(buffer, unknown_buffer(events[index]))
                else:
                    of_buffer = self._buffers.get(buffer) or self._buffer(buffer)
                of_device, home = self._devices.get(device) or self._device(device)
                errno = f'"{errno_name(result)}"' if result < 0 else "null"
                lines.append(
                    f'{{"type":"event","event":"{_NAMES[told[index]]}","ts_ns":{ts},'
                    f'"duration_ns":{duration or "null"},"result":{result},"errno":{errno},'
                    f'"pid":{tgid},"tid":{tid},"comm":{self._comms.get(comm) or self._comm(comm)},'
                    f'{of_buffer},"attachment":{(kind != Kind.DEVICE and attachment) or "null"},'
                    f'"mapping":{mapping or "null"},{of_device},'
                    f'"domain":{domain or home or "null"},'
                    f'"flags":{self._flags.get(flags) or self._flag_list(flags)},'
                    f"{payload}{self._fault(index) if kind == Kind.FAULT else ''}"
                    f"{self._extra(events, index) if extra else ''}}}\n"
                )
            if kind == Kind.MAP and self._scatterlists is not None:
                self._scatterlists.forget(mapping)
            if kind == Kind.RELEASE:
                names.forget(buffer)
                self._buffers.pop(buffer, None)
        return lines

    def _fault(self, index: int) -> str:
        """Whose address a fault's was, with a comma in front."""
        told = self._faults.get(index)
        members = json.dumps(told.members if told else None, separators=(",", ":"))
        return f',"attribution":{members}'

    def _extra(self, events: Events, index: int) -> str:
        """The keys that options add, with a comma in front."""
        text = ""
        if self._stacks is not None:
            text += f',"stack":{json.dumps(self._stacks.get(int(events["stack"][index])))}'
        if self._scatterlists is not None and events["kind"][index] == Kind.MAP:
            row = view(events[index : index + 1], "map")[0]
            found = self._scatterlists.entries(int(row["mapping"]), int(row["nents"]))
            text += f',"segments":{json.dumps(found, separators=(",", ":"))}'
        return text

    def _comm(self, comm: bytes) -> str:
        if len(self._comms) > 65536:
            self._comms.clear()
        self._comms[comm] = text = json.dumps(decode(comm))
        return text

    def _flag_list(self, flags: int) -> str:
        words = [str(flag.name).lower().replace("_", "-") for flag in Flag if flags & flag]
        self._flags[flags] = text = json.dumps(words, separators=(",", ":"))
        return text

    def _buffer(self, buffer: int) -> str:
        text = _buffer_members(buffer, self._names.buffers.get(buffer, Buffer()))
        self._buffers[buffer] = text
        return text

    def _device(self, device: int) -> tuple[str, int]:
        known = self._names.devices.get(device, Device())
        text = _members(
            {
                "device": known.name or None,
                "device_id": device or None,
                "driver": known.driver or None,
            }
        )
        self._devices[device] = found = text, known.domain
        return found


def _payloads(events: Events, wanted: NDArray[np.bool_]) -> list[str]:
    """The keys that depend on the kind, "context" first, as the end of an object."""
    texts = [""] * len(events)
    for number in np.unique(events["kind"][wanted]).tolist():
        kind = Kind(number)
        payload = PAYLOAD_OF[kind]
        chosen = np.flatnonzero(wanted & (events["kind"] == kind))
        if payload == "iommu" and kind != Kind.BOUNCE:
            outside = (events["flags"][chosen] & Flag.INSIDE) == 0
            _private(events, chosen[outside], kind, texts)
            chosen = chosen[~outside]
        rows = view(events[chosen], payload)
        told = [pair for pair in PAYLOAD_KEYS[payload] if pair[0] not in NOT_TOLD.get(kind, ())]
        columns = [_column(key, rows[name].tolist(), rows) for key, name in told]
        if payload == "l2":
            columns.insert(0, [context or "null" for context in rows["context"].tolist()])
        form = _FORMS[kind]
        # A kind may have nothing of its own to tell: zip of no columns would have no rows.
        lines = zip(*columns, strict=True) if columns else repeat((), len(rows))
        for index, values in zip(chosen.tolist(), lines, strict=True):
            texts[index] = form % values
    return texts


def _private(events: Events, chosen: NDArray[np.intp], kind: Kind, texts: list[str]) -> None:
    """The keys of maps and unmaps in private domains: those of level 2, and PRIVATE_KEYS."""
    rows = view(events[chosen], "iommu")
    names = ("domain", "iova", "size", "paddr", "done", "prot")
    columns = [rows[name].tolist() for name in names]
    if kind == Kind.IOMMU_UNMAP:
        columns[3] = columns[5] = ["null"] * len(rows)
    for index, values in zip(chosen.tolist(), zip(*columns, strict=True), strict=True):
        texts[index] = _PRIVATE_FORM % values


def _form(kind: Kind) -> str:
    """The format of a kind's own keys; what it does not tell is null in it already."""
    payload, hidden = PAYLOAD_OF[kind], NOT_TOLD.get(kind, ())
    parts = ['"context":%s' if payload == "l2" else '"context":null']
    parts += [f'"{key}":{"null" if key in hidden else "%s"}' for key, _ in PAYLOAD_KEYS[payload]]
    if kind in _PHASES:
        parts.append(f'"phase":"{_PHASES[kind]}"')
    return ",".join(parts)


_PRIVATE_FORM: Final = (
    '"context":%s,"address":%s,"size":%s,"offset":null,'
    f'"provider":{IOMMU},"owner":null,"client":null,"paddr":%s,"done":%s,"prot":%s'
)
_FORMS: Final = {kind: _form(kind) for kind in EVENT_NAMES}


def _column(key: str, values: list[int], rows: Events) -> list[Any]:
    """A column as JSON: numbers as they are, names in quotes, null for what is not set."""
    if key == "address" and "nents" in (rows.dtype.names or ()):
        # A map that was refused has no address.
        refused = (rows["result"] < 0).tolist()
        return ["null" if no else value for value, no in zip(values, refused, strict=True)]
    if key == "direction":
        return [_DIRECTIONS.get(value, "null") for value in values]
    if key == "domain_type":
        return [f'"{DOMAIN_TYPE_NAMES.get(value, hex(value))}"' for value in values]
    if key == "iommu_group":
        return ["null" if value == _NO_GROUP else value for value in values]
    if key in _ZERO_IS_NULL:
        return [value or "null" for value in values]
    return values


_DIRECTIONS: Final = {number: f'"{name}"' for number, name in enumerate(DIRECTIONS)}
_ZERO_IS_NULL: Final = frozenset({key for key, _ in PAYLOAD_KEYS["dev"]}) | {
    "old_domain",
    "owner",
    "client",
}


def _buffer_members(number: int, buffer: Buffer) -> str:
    return _members(
        {
            "buffer": number or None,
            "ino": buffer.ino or None,
            "exporter": buffer.exporter or None,
            "name": buffer.name or None,
        }
    )


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _members(value: Mapping[str, Any]) -> str:
    """An object's members without its braces."""
    return json.dumps(value, separators=(",", ":"))[1:-1]
