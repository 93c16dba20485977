# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a live trace shows what it sees: lines, JSON Lines, a dashboard, or only findings.

The renderers are pure; this is their connection to stdout. Findings are shown when they first
come and when they get worse; at the end JSON Lines has them all once more, with their counts.
Faults are events, each with its own attribution.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from dmabuf_tool.kernel.text import safe
from dmabuf_tool.live import Request, say
from dmabuf_tool.render.faults import Attribution
from dmabuf_tool.render.findings import finding_objects
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Batch

if TYPE_CHECKING:
    from rich.live import Live as RichLive

Faults = Mapping[int, Attribution]
"""What the model says of a batch's faults, by their place among its events."""

_AT_ONCE: Final = 512
"""Events that are rendered at once."""

_RANKS: Final = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a trace tells its output beside batches and findings."""

    elapsed_s: float
    now_ns: int
    events: int
    notes: Sequence[str]


class Output(Protocol):
    """What a trace needs of an output. Writing may raise BrokenPipeError."""

    def start(self, facts: Mapping[str, Any]) -> None:
        """The trace begins; `facts` are of the machine and its clocks."""

    def batch(self, batch: Batch, faults: Faults) -> None:
        """Show events."""

    def tick(self, engine: Engine, progress: Progress) -> None:
        """Show findings and state; twice a second."""

    def end(self, engine: Engine) -> None:
        """Show what is left and leave the terminal as it was."""


class Findings:
    """Only the findings, a line each on stderr as they come; the other outputs build on it."""

    def __init__(self, request: Request, start_ns: int) -> None:
        self._quiet = request.quiet
        self._verbose = request.verbose
        self._start_ns = start_ns
        self._told: dict[tuple[Any, ...], int] = {}

    def start(self, facts: Mapping[str, Any]) -> None:
        """Nothing to write ahead."""

    def batch(self, batch: Batch, faults: Faults) -> None:
        """Events are not shown."""

    def tick(self, engine: Engine, progress: Progress) -> None:
        """Tell the findings that are new or worse."""
        for found in finding_objects(engine.findings(), engine.model):
            who = (found["buffer"] or {}).get("id"), (found["device"] or {}).get("id")
            key = (found["id"], *who, (found["process"] or {}).get("pid"))
            rank = _RANKS[found["severity"]]
            if rank > self._told.get(key, -1):
                self._told[key] = rank
                self.finding(found)

    def finding(self, found: Mapping[str, Any]) -> None:
        """One line; facts (info) only when asked for more words."""
        if self._quiet or (found["severity"] == "info" and not self._verbose):
            return
        seconds = (found["last_ns"] - self._start_ns) / 1e9
        subject = [
            f"buffer ino {found['buffer']['ino']}" if found["buffer"] else "",
            f"device {found['device']['name']}" if found["device"] else "",
            f"{found['process']['comm']}/{found['process']['pid']}" if found["process"] else "",
        ]
        about = ", ".join(part for part in subject if part)
        say(safe(f"{seconds:10.6f} {found['severity']} {found['id']}: {found['title']} ({about})"))

    def end(self, engine: Engine) -> None:
        """Tell what came last."""
        self.tick(engine, Progress(0.0, 0, 0, ()))


class Lines(Findings):
    """One line an event, written plainly: rich takes 163 us a line, this 3."""

    def __init__(self, request: Request, start_ns: int) -> None:
        from dmabuf_tool.render.lines import LineRenderer, header_line

        super().__init__(request, start_ns)
        self._renderer = LineRenderer(
            start_ns=start_ns,
            failed=request.failed,
            stacks=request.stacks,
            verbose=request.verbose,
        )
        self._header = f"{header_line()}\n"

    def start(self, facts: Mapping[str, Any]) -> None:
        """Write the names of the columns."""
        _write(self._header)

    def batch(self, batch: Batch, faults: Faults) -> None:
        """Write the events of a batch."""
        _write_events(self._renderer, batch, faults)


class Json(Findings):
    """JSON Lines: the contract is in dmabuf-tool-trace(1)."""

    def __init__(self, request: Request, start_ns: int) -> None:
        from dmabuf_tool.render import jsonlines

        super().__init__(request, start_ns)
        self._lines = jsonlines
        self._renderer = jsonlines.JsonRenderer(
            failed=request.failed, stacks=request.stacks, segments=request.segments
        )

    def start(self, facts: Mapping[str, Any]) -> None:
        """Write the line that names the schema."""
        _write(self._lines.start_line(facts))

    def batch(self, batch: Batch, faults: Faults) -> None:
        """Write the events of a batch."""
        _write_events(self._renderer, batch, faults)

    def finding(self, found: Mapping[str, Any]) -> None:
        """Write one that is new or worse."""
        _write(self._lines.finding_line({**found, "final": False}))

    def end(self, engine: Engine) -> None:
        """Write all findings as they stand now."""
        for found in finding_objects(engine.findings(), engine.model):
            _write(self._lines.finding_line({**found, "final": True}))


class Dashboard(Findings):
    """A screen redrawn twice a second, on the terminal's second screen."""

    def __init__(self, request: Request, start_ns: int) -> None:
        from dmabuf_tool.render.snapshot import Rates

        super().__init__(request, start_ns)
        self._rates = Rates()
        self._recording = f"recording to {request.output}" if request.output else ""
        self._live: RichLive | None = None

    def start(self, facts: Mapping[str, Any]) -> None:
        """Take the screen."""
        from rich.live import Live

        self._live = Live(screen=True, auto_refresh=False, redirect_stderr=False)
        self._live.start()

    def tick(self, engine: Engine, progress: Progress) -> None:
        """Draw."""
        from dmabuf_tool.render.live import dashboard
        from dmabuf_tool.render.snapshot import snapshot

        if self._live is None:
            return
        shot = snapshot(
            engine.model,
            finding_objects(engine.findings(), engine.model),
            self._rates,
            elapsed_s=progress.elapsed_s,
            now_ns=progress.now_ns,
            events=progress.events,
            notes=progress.notes,
            recording=self._recording,
        )
        size = self._live.console.size
        self._live.update(dashboard(shot, size.width, size.height), refresh=True)

    def end(self, engine: Engine) -> None:
        """Give the screen back and leave the findings on it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        super().tick(engine, Progress(0.0, 0, 0, ()))


class _Renderer(Protocol):
    """What makes lines of events."""

    def render(self, batch: Batch, *, faults: Faults) -> str:
        """The lines of a batch."""


def _write_events(renderer: _Renderer, batch: Batch, faults: Faults) -> None:
    """Write a batch in pieces, of which tables and losses come with the first: what is rendered at
    once is held as Python objects, hundreds of bytes an event."""
    rest = batch
    for start in range(0, len(batch.events), _AT_ONCE) or (0,):
        end = start + _AT_ONCE
        mine = {index - start: one for index, one in faults.items() if start <= index < end}
        _write(renderer.render(replace(rest, events=batch.events[start:end]), faults=mine))
        rest = replace(batch, tables=batch.tables[:0], segments=batch.segments[:0], stacks={})


def _write(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


_KINDS: Final = {"lines": Lines, "json": Json, "live": Dashboard, "none": Findings}


def open_output(request: Request, start_ns: int) -> Output:
    """The output that was asked for."""
    return _KINDS[request.output_format](request, start_ns)
