# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold a capture against the test driver's own log, event for event.

The driver logs every operation at the moment it does it (tests/lab/module/log.c). Within one
thread both sides are in the same order, so the two are compared thread by thread; ids are
compared by pairing: the same attachment and the same mapping on one side must be the same on the
other.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.schema import DIRECTIONS, PAYLOAD_OF, Flag, Kind, text, view

OPS = {
    "export": Kind.EXPORT,
    "release": Kind.RELEASE,
    "attach": Kind.ATTACH,
    "detach": Kind.DETACH,
    "map": Kind.MAP,
    "unmap": Kind.UNMAP,
    "pin": Kind.PIN,
    "unpin": Kind.UNPIN,
    "cpu-begin": Kind.CPU_BEGIN,
    "cpu-end": Kind.CPU_END,
}
_WITH_TABLE = {"map", "unmap"}
_WITH_DIRECTION = {"map", "unmap", "cpu-begin", "cpu-end"}


@dataclass
class Seen:
    """One operation as one side saw it; `fields` must be equal, `pairs` must pair up."""

    op: str
    ts_ns: int
    fields: dict[str, Any]
    pairs: dict[str, int]


@dataclass
class Sides:
    """Operations by thread."""

    by_thread: dict[int, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def add(self, tid: int, seen: Seen) -> None:
        self.by_thread[tid].append(seen)

    def count(self) -> int:
        return sum(map(len, self.by_thread.values()))


def objects(text: str) -> list[dict[str, Any]]:
    """The objects of JSON lines: what a trace told."""
    return [json.loads(line) for line in text.splitlines()]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The same of a file: the driver's log."""
    return objects(path.read_text())


def from_log(path: Path) -> Sides:
    """The driver's side."""
    sides = Sides()
    for entry in lines_of(path):
        op = entry["op"]
        if op not in OPS:
            continue
        fields = {
            "result": entry["result"],
            "ino": entry["ino"],
            "size": entry["size"],
            "comm": entry["comm"],
            "tgid": entry["tgid"],
        }
        pairs = {}
        if op not in ("export", "release", "cpu-begin", "cpu-end"):
            fields["device"] = entry["device"]
            pairs["attachment"] = entry["attachment"]
        if op in _WITH_DIRECTION:
            fields["direction"] = entry["direction"]
        if op in _WITH_TABLE and entry["result"] == 0:
            fields["nents"] = entry["nents"]
            fields["orig_nents"] = entry["orig_nents"]
            fields["address"] = entry["dma_addr"]
        if op == "map" and entry["result"] == 0:
            fields["sum"] = entry["dma_sum"]
        sides.add(entry["tid"], Seen(op, entry["ts_ns"], fields, pairs))
    return sides


def from_capture(path: Path, exporter: str = "dmabuf_lab") -> Sides:
    """The tool's side: what the driver can log too, so exports of this exporter only."""
    sides = Sides()
    buffers: dict[int, tuple[int, int, str]] = {}
    devices: dict[int, str] = {}
    sums: dict[int, int] = defaultdict(int)
    kinds = {kind: op for op, kind in OPS.items()}
    for batch in open_capture(path).batches():
        for table in batch.tables:
            start, count = int(table["offset"]), int(table["count"])
            sums[int(table["mapping"])] += int(
                batch.segments["dma_length"][start : start + count].sum(dtype=np.uint64)
            )
        for raw in batch.events:
            kind = Kind(int(raw["kind"]))
            event = view(raw.reshape(1), PAYLOAD_OF[kind])[0]
            if kind in (Kind.EXPORT, Kind.BUFFER):
                buffers[int(event["buffer"])] = (
                    int(event["ino"]),
                    int(event["size"]),
                    text(bytes(event["exporter"])),
                )
            if kind == Kind.NAME_DEVICE:
                devices[int(event["device"])] = text(bytes(event["text"]))
            if kind not in kinds or _by_the_core(kind, int(event["flags"])):
                continue
            for seen in _seen(kinds[kind], event, buffers, devices, sums, exporter):
                sides.add(int(event["tid"]), seen)
    return sides


def _by_the_core(kind: Kind, flags: int) -> bool:
    """Maps made inside attach and unpins inside unmap: the driver did not ask for them."""
    if kind == Kind.MAP:
        return bool(flags & Flag.IN_ATTACH)
    return kind in (Kind.PIN, Kind.UNPIN) and bool(flags & Flag.INSIDE)


def _seen(
    op: str,
    event: Any,
    buffers: dict[int, tuple[int, int, str]],
    devices: dict[int, str],
    sums: dict[int, int],
    exporter: str,
) -> Iterator[Seen]:
    ino, size, name = buffers.get(int(event["buffer"]), (0, 0, ""))
    if op in ("export", "release") and name != exporter:
        return
    fields = {
        "result": int(event["result"]),
        "ino": ino,
        "size": size,
        "comm": text(bytes(event["comm"])),
        "tgid": int(event["tgid"]),
    }
    pairs = {}
    if op not in ("export", "release", "cpu-begin", "cpu-end"):
        fields["device"] = devices.get(int(event["device"]), "")
        pairs["attachment"] = int(event["attachment"])
    if op in _WITH_DIRECTION:
        fields["direction"] = DIRECTIONS[int(event["direction"])]
    if op in _WITH_TABLE and event["result"] == 0:
        fields["nents"] = int(event["nents"])
        fields["orig_nents"] = int(event["orig_nents"])
        fields["address"] = int(event["address"])
    if op == "map" and event["result"] == 0:
        fields["sum"] = sums[int(event["mapping"])]
    yield Seen(op, int(event["ts_ns"]), fields, pairs)


def differences(log: Sides, capture: Sides, most: int = 20) -> list[str]:
    """Where the two sides differ, in words; [] when they agree to the last event."""
    wrong = []
    paired: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for tid in sorted(log.by_thread.keys() | capture.by_thread.keys()):
        ours, theirs = capture.by_thread.get(tid, []), log.by_thread.get(tid, [])
        if len(ours) != len(theirs):
            wrong.append(f"thread {tid}: {len(theirs)} in the log, {len(ours)} in the capture")
        for number, (logged, seen) in enumerate(zip(theirs, ours, strict=False)):
            where = f"thread {tid} operation {number} ({logged.op} at {logged.ts_ns})"
            if logged.op != seen.op or logged.fields != seen.fields:
                odd = {
                    k: (v, seen.fields.get(k)) for k, v in logged.fields.items()
                    if seen.fields.get(k) != v
                }  # fmt: skip
                wrong.append(f"{where}: logged, seen {seen.op}: {odd}")
                if logged.op != seen.op:
                    break
            for what, value in logged.pairs.items():
                for one, other, side in (
                    (value, seen.pairs[what], "log"),
                    (seen.pairs[what], value, "capture"),
                ):
                    known = paired[what, side].setdefault(one, other)
                    if known != other:
                        wrong.append(f"{where}: {what} {one} was {known}, is {other}")
            if len(wrong) >= most:
                return wrong
    return wrong


def counts(sides: Sides) -> dict[str, int]:
    """Operations by name."""
    result: dict[str, int] = defaultdict(int)
    for seen in sides.by_thread.values():
        for one in seen:
            result[one.op] += 1
    return dict(result)
