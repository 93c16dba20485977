# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a capture in which scenes were played one after the other, by the rules of the tool.

Each scene is judged as if it had been traced alone: the events between its begin and its end,
and before them only what says which devices, domains and names there are. Needs no lab: the
captures in tests/data are judged again in unit tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.model.configured import ConstraintFile, load_constraints
from dmabuf_tool.model.gather import gather
from dmabuf_tool.model.holders import read_snapshots
from dmabuf_tool.model.memory import DeviceMemory
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.rules.findings import Finding, evidence_of
from dmabuf_tool.schema import NAME_KINDS, Batch, Kind

Act = dict[str, Any]
"""What was played: id, bad, severity, start_ns, end_ns, evidence, thresholds, constraints, holders,
kernel."""

BACKGROUND = (Kind.DEVICE, Kind.DEVICE_GONE, Kind.DOMAIN, Kind.DOMAIN_ATTACH, *NAME_KINDS)


class Played:
    """A capture with everything in one batch."""

    def __init__(self, path: Path) -> None:
        with open_capture(path) as reader:
            parts = list(gather(reader.batches()))
            inventory = reader.inventory
            self.kernel = reader.header.kernel
            self.memory = DeviceMemory.of(reader.header.devices)
            self.losses = reader.losses
        assert len(parts) == 1, "a capture of scenes is small"
        self.batch = parts[0]
        self.exits = _exits(inventory)

    def findings(self, act: Act) -> list[Finding]:
        """What the tool finds in one act."""
        start, end = act["start_ns"], act["end_ns"]
        events = self.batch.events
        known = np.isin(events["kind"], BACKGROUND) & (events["ts_ns"] < start)
        inside = (events["ts_ns"] >= start) & (events["ts_ns"] <= end)
        events = events[known | inside]
        tables = self.batch.tables
        tables = tables[np.isin(tables["mapping"], events["mapping"])]
        engine = Engine(_constraints(act["constraints"]), act["thresholds"])
        engine.model.memory = self.memory
        engine.feed(Batch(events, tables, self.batch.segments, self.batch.stacks))
        engine.model.process_exits([one for one in self.exits if start <= one[1] <= end])
        for snapshot in read_snapshots({"holders": look} for look in act["holders"]):
            engine.model.holders.see(snapshot)
        engine.model.advance(end)
        return engine.findings()


def exits_so_far(path: Path) -> list[tuple[int, int]]:
    """(tgid, ts_ns) of the exits in a capture that is still written."""
    with open_capture(path) as reader:
        for _ in reader.batches():
            pass
        return _exits(reader.inventory)


def _exits(inventory: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    return [
        (int(tgid), int(ts_ns))
        for entry in inventory
        for tgid, ts_ns in entry.get("process_exits", ())
    ]


def _constraints(text: str) -> ConstraintFile | None:
    if not text:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        return load_constraints(Path(file.name))


def verdict(act: Act, findings: list[Finding]) -> str:
    """What is wrong with what was found in an act; "" if nothing is."""
    least = Severity[act["severity"].upper()]
    raised = [one for one in findings if one.rule.id == act["id"] and one.severity >= least]
    if not act["bad"]:
        return f"raised: {raised[0].told.title}" if raised else ""
    if not raised:
        return "not raised"
    wrong = ""
    for one in raised:
        evidence = evidence_of(one)
        unlike = {
            key: (value, evidence.get(key))
            for key, value in act["evidence"].items()
            if evidence.get(key) != value
        }
        if one.severity != least:
            unlike["severity"] = (str(least), str(one.severity))
        if not unlike:
            return ""
        wrong = ", ".join(f"{key} {got!r}, not {want!r}" for key, (want, got) in unlike.items())
    return f"{wrong}: {raised[-1].told.title}"


def others(act: Act, findings: list[Finding]) -> list[str]:
    """What else was found, as "severity id"."""
    return sorted({f"{one.severity} {one.rule.id}" for one in findings if one.rule.id != act["id"]})
