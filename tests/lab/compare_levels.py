# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold the tool's two-level table against the test driver's own, moment by moment.

The driver prints its table at moments that its log marks with a time (random_levels.py). The
capture is read by the product's model up to that time, and render/levels.py tells the table, as
`report --format json` would for a trace that ended there. A row on both sides is what is mapped
where: context, address, bytes, buffer, offset in it, device, address and segments of level 1,
whether level 1 translates, source, nested. Neighbours that go on in buffer and context are one
row on both sides.

Contexts are paired by the calls that mapped in them: the driver's call and the tool's event of
one thread are at the same time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from compare import lines_of

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.model.model import Model
from dmabuf_tool.render import levels
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import Finding
from dmabuf_tool.schema import PAYLOAD_OF, Batch, Flag, Kind, view


@dataclass(frozen=True)
class Row:
    """One row; addresses and sizes in bytes. `context` is the driver's number, None and no level 2
    for a level-1 mapping with nothing on top. `level1` is (address, segments, translated), None
    where another device's mapping only tells whose pages these are."""

    ino: int
    device: str
    level1: tuple[int, int, bool] | None
    context: int | None = None
    kind: str = ""
    address: int = 0
    bytes: int = 0
    offset: int = 0
    source: str | None = None
    nested: bool = False

    def follows(self, other: Row) -> bool:
        """Whether it goes on where the other ends, in the context and in the buffer."""
        start = replace(self, address=other.address, bytes=other.bytes, offset=other.offset)
        step = self.address - other.address
        return (
            start == other
            and self.context is not None
            and step == other.bytes
            and self.offset - other.offset == step
        )


@dataclass(frozen=True)
class Moment:
    """Both sides' tables at one time. `unused`: level-1 mappings an exporter keeps for an
    attachment though its importer unmapped them; the driver cannot know of these."""

    number: int
    driver: Counter[Row]
    tool: Counter[Row]
    unused: Counter[Row]

    def differences(self) -> list[str]:
        """In words, [] for none."""
        words = [f"moment {self.number}: only the driver: {row}" for row in self.driver - self.tool]
        only = self.tool - self.driver - self.unused
        return words + [f"moment {self.number}: only the tool: {row}" for row in only]


@dataclass(frozen=True)
class Compared:
    """All moments of a run, the findings of its capture, and contexts by the driver's numbers."""

    moments: list[Moment]
    findings: list[Finding]
    model: Model
    contexts: dict[int, int]


def compare(capture: Path, log: Path, tables: Path) -> Compared:
    """Read the capture once, looking at the table at each of the driver's moments."""
    lines = lines_of(log)
    marks = {line["count"]: line["ts_ns"] for line in lines if line["op"] == "mark"}
    batches = list(open_capture(capture).batches())
    contexts = pair_contexts(lines, batches)
    numbers = {tool: number for number, tool in contexts.items()}
    assert len(numbers) == len(contexts), f"contexts of the tool are paired twice: {contexts}"
    engine = Engine()
    moments = []
    todo = sorted((marks[entry["mark"]], entry) for entry in lines_of(tables))
    for batch in batches:
        while todo and len(batch.events) and int(batch.events["ts_ns"].max()) > todo[0][0]:
            mark, entry = todo.pop(0)
            before, batch = cut(batch, mark)  # noqa: PLW2901
            engine.feed(before)
            moments.append(moment(entry, engine.model, numbers))
        engine.feed(batch)
    moments += [moment(entry, engine.model, numbers) for _, entry in todo]
    return Compared(moments, engine.findings(), engine.model, contexts)


def cut(batch: Batch, ts_ns: int) -> tuple[Batch, Batch]:
    """What was before a time, and what came after it; nothing ran at that time."""
    at = int(np.searchsorted(batch.events["ts_ns"] > ts_ns, True))
    assert not bool(np.any(batch.events["ts_ns"][at:] <= ts_ns))
    assert not bool(np.any(batch.events["ts_ns"][:at] > ts_ns))
    return replace(batch, events=batch.events[:at]), replace(
        batch, events=batch.events[at:], tables=batch.tables[:0], segments=batch.segments[:0]
    )


def pair_contexts(lines: list[dict[str, Any]], batches: list[Batch]) -> dict[int, int]:
    """The driver's contexts that were mapped in -> the tool's."""
    seen = sorted(
        (int(event["ts_ns"]), int(event["context" if kind == Kind.LEVEL2_MAP else "domain"]))
        for batch in batches
        for kind in (Kind.IOMMU_MAP, Kind.LEVEL2_MAP)
        for event in view(batch.events[batch.events["kind"] == kind], PAYLOAD_OF[kind])
        if not event["flags"] & Flag.INSIDE
    )
    pairs: dict[int, int] = {}
    for line in lines:
        if line["op"] != "level2-map":
            continue
        first = bisect_left(seen, (line["start_ns"], 0))
        last = bisect_left(seen, (line["ts_ns"] + 1, 0))
        during = {context for _, context in seen[first:last]}
        assert len(during) == 1, f"during {line} the tool saw maps in contexts {during}"
        known = pairs.setdefault(line["context"], during.pop())
        assert {known} == {context for _, context in seen[first:last]}, line
    return pairs


def moment(entry: dict[str, Any], model: Model, numbers: dict[int, int]) -> Moment:
    """Both sides' tables of one time."""
    live = model.mappings.live
    idle = [int(row["id"]) for row in live.live() if row["users"] <= 0]
    unused = Counter(
        row
        for row in tool_rows(model, numbers)
        if row.context is None
        and any(row.level1 and row.level1[0] == address_of(model, one) for one in idle)
    )
    return Moment(
        entry["mark"],
        Counter(merged(driver_rows(entry["rows"]))),
        Counter(merged(tool_rows(model, numbers))),
        unused,
    )


def address_of(model: Model, mapping: int) -> int:
    return int(model.mappings.live.rows[model.mappings.live.position(mapping)]["address"])


def driver_rows(rows: list[dict[str, Any]]) -> Iterator[Row]:
    """The driver's lines as rows: a mapping that a range of its device stands on has no own."""
    maps = {row["map"]: row for row in rows if "context" not in row}
    covered = set()
    for row in rows:
        if "context" not in row:
            continue
        level1 = maps[row["map"]]
        mine = level1["device"] == row["device"]
        if mine:
            covered.add(row["map"])
        yield Row(
            row["ino"], row["device"], side1(level1) if mine else None, row["context"], row["kind"],
            row["va"], row["bytes"], row["offset"], row["source"], row["nested"],
        )  # fmt: skip
    for number, level1 in maps.items():
        if number not in covered:
            yield Row(level1["ino"], level1["device"], side1(level1))


def side1(row: dict[str, Any]) -> tuple[int, int, bool]:
    return row["dma_addr"], row["nents"], row["translated"]


def tool_rows(model: Model, numbers: dict[int, int]) -> Iterator[Row]:
    """The tool's rows under the driver's context numbers; contexts it does not know are < 0."""
    kinds = {context["id"]: context["kind"] for context in levels.contexts(model)}
    names = {"unmanaged": "domain", "gpu-vm": "gpuvm"}
    for row in levels.two_level(model):
        level1 = row["level1"]
        side = (level1["address"], level1["segments"], level1["translated"]) if level1 else None
        if row["level2"] is None:
            yield Row(row["ino"], row["device"], side)
            continue
        level2, context = row["level2"], row["context"]
        yield Row(
            row["ino"], row["device"], side, numbers.get(context, -context),
            names.get(kinds[context], str(kinds[context])), level2["address"], level2["size"],
            level2["offset"], row["source"], row["nested"],
        )  # fmt: skip


def merged(rows: Iterator[Row]) -> Iterator[Row]:
    """Neighbours as one."""
    last: Row | None = None
    for row in sorted(rows, key=lambda row: (row.context or 0, row.address)):
        if last is not None and row.follows(last):
            last = replace(last, bytes=last.bytes + row.bytes)
            continue
        if last is not None:
            yield last
        last = row
    if last is not None:
        yield last
