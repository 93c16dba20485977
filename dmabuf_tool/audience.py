# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace tells as it goes: events into model and rules, and out to whoever looks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dmabuf_tool.live import Request
from dmabuf_tool.model import inventory
from dmabuf_tool.outputs import Output, Progress, open_output
from dmabuf_tool.render.faults import attributions
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Batch


class Audience:
    """An engine and an output. What writes may raise BrokenPipeError: the reader has gone."""

    def __init__(self, request: Request, engine: Engine, start_ns: int) -> None:
        self._engine = engine
        self._start_ns = start_ns
        self._output: Output = open_output(request, start_ns)

    def start(self, facts: Mapping[str, Any]) -> None:
        """The trace begins; `facts` are of the machine and its clocks."""
        self._output.start(facts)

    def batch(self, batch: Batch) -> None:
        """Judge and show events."""
        self._output.batch(batch, attributions(self._engine.feed(batch)))

    def entry(self, entry: Mapping[str, Any]) -> None:
        """Take what was seen beside the events (model/inventory.py)."""
        inventory.take(self._engine.model, entry)

    def advance(self, now_ns: int) -> None:
        """Let go on what waits for time: nothing is missing up to `now_ns`, as events count."""
        self._engine.model.advance(now_ns)

    def tick(self, events: int, notes: Sequence[str]) -> None:
        """Show findings and state, with the number of events so far."""
        now = time.monotonic_ns()
        progress = Progress((now - self._start_ns) / 1e9, now, events, notes)
        self._output.tick(self._engine, progress)

    def end(self) -> None:
        """Show what is left and leave the terminal as it was."""
        self._output.end(self._engine)
