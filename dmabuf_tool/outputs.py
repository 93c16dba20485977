# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a live trace shows what it sees: lines, JSON Lines, a dashboard, or only findings.

The renderers are pure; this is their connection to stdout.
"""

from __future__ import annotations

import os
import sys
from typing import Final, Protocol

from dmabuf_tool.live import Request
from dmabuf_tool.probes.session import Session
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import Batch


class Output(Protocol):
    """What a trace needs of an output. Writing may raise BrokenPipeError."""

    def batch(self, batch: Batch) -> None:
        """Show events."""

    def tick(self, engine: Engine, session: Session) -> None:
        """Show findings and state; twice a second."""

    def end(self, engine: Engine) -> None:
        """Show what is left and leave the terminal as it was."""

    def abandon(self) -> None:
        """The reader is gone: write nothing more."""


class Silent:
    """Only the findings, on stderr, as they come."""

    def batch(self, batch: Batch) -> None:
        """Events are not shown."""

    def tick(self, engine: Engine, session: Session) -> None:
        """Nothing yet."""

    def end(self, engine: Engine) -> None:
        """Nothing yet."""

    def abandon(self) -> None:
        """There is no reader."""


class Lines(Silent):
    """One line an event, written plainly: rich takes 163 us a line, this 2."""

    def __init__(self, request: Request, start_ns: int) -> None:
        from dmabuf_tool.render.lines import LineRenderer, header_line

        self._renderer = LineRenderer(
            start_ns=start_ns,
            failed=request.failed,
            stacks=request.stacks,
            verbose=request.verbose,
        )
        _write(f"{header_line()}\n")

    def batch(self, batch: Batch) -> None:
        """Write the events of a batch."""
        _write(self._renderer.render(batch))

    def abandon(self) -> None:
        """Keep the interpreter from flushing into a closed pipe."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Json(Lines):
    """JSON Lines."""

    def __init__(self, request: Request, start_ns: int) -> None:
        from dmabuf_tool.render.jsonlines import JsonRenderer

        self._renderer = JsonRenderer(  # type: ignore[assignment]
            failed=request.failed, stacks=request.stacks, segments=request.segments
        )


def _write(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


_KINDS: Final = {"lines": Lines, "json": Json}


def open_output(request: Request, start_ns: int) -> Output:
    """The output that was asked for."""
    kind = _KINDS.get(request.output_format)
    return kind(request, start_ns) if kind else Silent()
