# SPDX-License-Identifier: GPL-2.0-or-later
"""The start of a live trace: what was asked for, the signals that end it, the loader child.

Imports next to nothing, so that the loader child is forked at once and small; the rest is
imported in dmabuf_tool.tracer while the child compiles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import children, presence
from dmabuf_tool.probes import loader, source, workshop

if TYPE_CHECKING:
    from dmabuf_tool.rules.engine import Engine


@dataclass(slots=True)
class Request:
    """What the user asked for. `duration_s` 0: until Ctrl-C or the command's end."""

    output: Path | None = None
    force: bool = False
    output_format: str = "lines"
    """lines, json, live (a dashboard) or none."""
    quiet: bool = False
    verbose: bool = False
    failed: bool = False
    stacks: bool = False
    segments: bool = False
    duration_s: float = 0.0
    pids: Sequence[int] = ()
    comms: Sequence[str] = ()
    devices: Sequence[str] = ()
    exporters: Sequence[str] = ()
    max_segments: int = 4096
    buffer_bytes: int = 1 << 20
    command: Sequence[str] = ()
    arguments: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))

    @property
    def judges(self) -> bool:
        """Whether model and rules run: a trace that only records leaves that to `report`."""
        return self.output is None or self.output_format != "none"


def say(text: str) -> None:
    """A line about the trace itself: stderr, so that stdout holds events only."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def abandon_stdout() -> None:
    """The reader is gone: keep the interpreter from flushing into a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(request: Request, make_engine: Callable[[], Engine]) -> int:
    """Trace until told to stop; returns the exit status.

    `make_engine` is called while the loader compiles, if the trace judges: it imports the model
    and the rules. Raises ToolError when tracing cannot begin.
    """
    _check(request)
    options = source.Options(
        event_ring=request.buffer_bytes,
        chunk_ring=request.buffer_bytes,
        max_segments=request.max_segments,
        stacks=request.stacks,
    )
    with StopSignals() as stop:
        loading = loader.start(options, workshop=workshop.early)
        try:
            # While the child compiles: numpy and what comes with it.
            from dmabuf_tool.tracer import Tracer

            engine = make_engine() if request.judges else None
            loaded = loading.finish(stop.fileno())
        finally:
            loading.abandon()
        return Tracer(request, engine, loaded, options, stop).run()


def _which(command: str) -> str | None:
    """As shutil.which(), whose module takes its time: it can unpack archives of all kinds."""
    from shutil import which

    return which(command)


def _check(request: Request) -> None:
    """Refuse what cannot give a trace, before anything is loaded.

    Raises ToolError.
    """
    if request.output is not None:
        if request.output.exists() and not request.force:
            raise ToolError(f"{request.output} exists; -f overwrites it")
        if not request.output.parent.is_dir():
            raise ToolError(f"{request.output}: there is no directory {request.output.parent}")
    if request.command and _which(request.command[0]) is None:
        raise ToolError(f"cannot run {request.command[0]}: no such command")
    for pid in request.pids:
        process = presence.process_of(pid)
        if process is None:
            raise ToolError(f"there is no process {pid}")
        if process != pid:
            raise ToolError(f"{pid} is a thread of process {process}: use -p {process}")
    for name in request.devices:
        # What a pattern stands for may come later, with a driver that is loaded.
        if not presence.is_pattern(name) and not presence.has_device(name):
            raise ToolError(
                f"there is no device {name}: 'dmabuf-tool devices' lists them;"
                f" '{name}*' takes one that comes later"
            )


class StopSignals:
    """Signals that end a trace, as a descriptor that becomes readable."""

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._handle) for number in children.STOPPING}
        self.asked = False
        self.count = 0
        self.last = signal.SIGINT
        children.take_stops()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.count += 1
        self.last = signal.Signals(number)

    def clear(self) -> None:
        """Wait for the next one; `count` goes on."""
        self.asked = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 512):
                pass

    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._reader
