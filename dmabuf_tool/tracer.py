# SPDX-License-Identifier: GPL-2.0-or-later
"""A live trace under way: drain, select, record, judge, show; until it is told to stop.

    session -> selection -> capture, audience (model and rules, output)

Batches are taken a few times a second: the model works on whole batches, and a small one costs
as much as a large one. A trace that only records is not judged: `report` does that later.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dmabuf_tool.capture.header import Header
from dmabuf_tool.capture.writer import CaptureFull, CaptureWriter
from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import devices, heap, iommu, machine, privileges
from dmabuf_tool.live import Request, StopSignals, abandon_stdout, say
from dmabuf_tool.probes import late
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.selection import Selection
from dmabuf_tool.probes.session import Session
from dmabuf_tool.probes.source import Options
from dmabuf_tool.render.devices import document as device_document
from dmabuf_tool.schema import Batch, Losses
from dmabuf_tool.surroundings import Surroundings

if TYPE_CHECKING:
    from dmabuf_tool.rules.engine import Engine

_TAKE_S: Final = 0.2
_TICK_S: Final = 0.5
_SETTLE_S: Final = 0.4
"""How long a trace goes on after its command: what a process leaves behind is told after a grace
time (rules/attachment_leak.py), and the kernel cleans up behind it meanwhile."""


class Tracer:
    """Runs one trace. What can fail before it begins fails in the constructor, as ToolError.

    Without an engine nothing is judged or shown, only recorded.
    """

    def __init__(
        self,
        request: Request,
        engine: Engine | None,
        loaded: Loaded,
        options: Options,
        stop: StopSignals,
    ) -> None:
        self._request = request
        self._stop = stop
        self._start_ns = time.monotonic_ns()
        self._selection = Selection(request.pids, request.comms, request.devices, request.exporters)
        self._losses = Losses()
        self._events = 0
        self._notes: list[str] = []
        here, clocks = machine.machine(), machine.clocks()
        self._facts: dict[str, Any] = {
            "host": here.host,
            "kernel": here.kernel,
            "arch": here.arch,
            "boot_id": here.boot_id,
            "start_ns": self._start_ns,
            "realtime_offset_ns": clocks.realtime_ns,
        }
        self._devices = device_document(
            devices.devices(), iommu.groups(), iommu.units(), None, here
        )
        try:
            self._writer = self._create_capture(loaded)
            self._late = late.Late(loaded, options)
            self._session = Session(loaded, options)
        except BaseException:
            loaded.close()
            raise
        self._audience = None
        if engine is not None:
            from dmabuf_tool.audience import Audience
            from dmabuf_tool.model.memory import DeviceMemory

            engine.model.memory = DeviceMemory.of(self._devices)
            self._audience = Audience(request, engine, self._start_ns)
        self._surroundings = Surroundings()
        # All is open, all children are there; the thread that drains inherits what is left.
        privileges.drop()
        self._session.start()
        self._traced: set[int] = set()
        self._command: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Trace to the end; returns the exit status."""
        reason = "done"
        try:
            self._announce()
            if self._audience:
                self._audience.start(self._facts)
            self._spawn()
            reason = self._loop()
            self._settle()
        except BrokenPipeError:
            # Who read our lines has gone: the trace ends, the capture stays whole.
            reason = "output closed"
            abandon_stdout()
        finally:
            self._close(reason)
        self._summary()
        return self._status()

    def _create_capture(self, loaded: Loaded) -> CaptureWriter | None:
        request = self._request
        if request.output is None:
            return None
        header = Header(
            **self._facts,
            command=request.arguments,
            plan=loaded.ways,
            devices=self._devices,
        )
        return CaptureWriter(request.output, header, force=request.force)

    def _announce(self) -> None:
        ways = self._session.ways
        lost = [way for way in ways if way["method"] == "missing"]
        self._notes = (
            ["not seen on this kernel: " + "; ".join(w["lost"] for w in lost)] if lost else []
        )
        self._notes += self._late.describe()
        if self._request.quiet:
            return
        until = "until the command ends" if self._request.command else "Ctrl-C stops"
        seconds = (time.monotonic_ns() - machine.process_start_ns()) / 1e9
        say(
            f"tracing dma-bufs, {len(ways) - len(lost)} of {len(ways)} hooks,"
            f" ready after {seconds:.1f} s; {until}"
        )
        for note in self._notes:
            say(note)

    def _spawn(self) -> None:
        command = self._request.command
        if not command:
            return
        try:
            self._command = subprocess.Popen(command)
        except OSError as error:
            raise ToolError(f"cannot run {command[0]}: {error.strerror}") from error

    def _loop(self) -> str:
        """Drain until a signal, the end of the time or of the command; returns which."""
        request = self._request
        deadline = time.monotonic() + request.duration_s if request.duration_s else None
        next_tick = time.monotonic() + _TICK_S
        with contextlib.ExitStack() as stack:
            waits: list[int] = [self._stop.fileno()]
            if self._command is not None:
                pidfd = os.pidfd_open(self._command.pid)
                stack.callback(os.close, pidfd)
                waits.append(pidfd)
            while True:
                now = time.monotonic()
                if now >= next_tick:
                    self._tick()
                    next_tick = now + _TICK_S
                else:
                    self._read()
                if deadline is not None and now >= deadline:
                    return "done"
                wait = _TAKE_S if deadline is None else min(_TAKE_S, deadline - now)
                ready, _, _ = select.select(waits, [], [], wait)
                if self._command is not None and self._command.poll() is not None:
                    return "done"
                # Ctrl-C goes to the command too: its end is the end of the trace.
                if ready and self._stop.asked and not self._pass_on():
                    return "interrupted"

    def _pass_on(self) -> bool:
        """Leave a stop signal to the command; a second one ends the trace."""
        if self._command is None or self._stop.count > 1:
            return False
        self._stop.clear()
        if self._stop.last != signal.SIGINT:  # a terminal sends only SIGINT to its whole group
            self._command.send_signal(self._stop.last)
        return True

    def _settle(self) -> None:
        """After a command: let what it left behind show; then take the last events."""
        if self._command is not None:
            end = time.monotonic() + _SETTLE_S
            while (rest := end - time.monotonic()) > 0 and not self._stop.asked:
                self._read()
                select.select([self._stop.fileno()], [], [], min(rest, _TAKE_S))
        self._tick(last=True)

    def _read(self) -> None:
        self._take(self._session.read())

    def _take(self, batch: Batch | None) -> None:
        if batch is None:
            return
        batch = self._selection.apply(batch)
        self._events += len(batch.events)
        self._losses = batch.losses
        self._traced.update(np.unique(batch.events["tgid"]).tolist())
        self._record(lambda writer: writer.write(batch))
        if self._audience:
            self._audience.batch(batch)

    def _tick(self, *, last: bool = False) -> None:
        """Take what was seen beside the events, after all events that came before it."""
        entries = self._look_for_modules()
        self._surroundings.look()
        now_ns = time.monotonic_ns()
        self._take(self._session.finish() if last else self._session.read())
        for entry in (*entries, *self._surroundings.read(self._traced, last=last)):
            self._record(lambda writer, entry=entry: writer.write_inventory(entry))  # type: ignore[misc]
            if self._audience:
                self._audience.entry(entry)
        if self._audience:
            self._audience.advance(now_ns)
        self._record(CaptureWriter.tick)
        if self._audience:
            self._audience.tick(self._events, self._notes)
        heap.give_back()

    def _look_for_modules(self) -> list[dict[str, Any]]:
        """Providers of level 2 whose modules came; the capture keeps what was attached when."""
        lines, entry = self._late.look()
        self._notes += lines
        if not self._request.quiet:
            for line in lines:
                say(line)
        return [entry] if entry else []

    def _record(self, write: Callable[[CaptureWriter], None]) -> None:
        """Write to the capture, if there is one; a full disk ends it, not the trace."""
        if self._writer is None:
            return
        try:
            write(self._writer)
        except CaptureFull as error:
            say(f"dmabuf-tool: {error}")
            self._writer = None

    def _close(self, reason: str) -> None:
        """Let everything go, in an order that loses nothing."""
        self._late.close()
        self._surroundings.close()
        self._record(lambda writer: writer.close(reason))
        self._session.close()
        if self._audience:
            with contextlib.suppress(BrokenPipeError):
                self._audience.end()

    def _summary(self) -> None:
        if self._request.quiet:
            return
        losses = self._losses
        seconds = (time.monotonic_ns() - self._start_ns) / 1e9
        lost = (
            f"LOST {losses.events} events, {losses.scatterlists} scatterlist entries,"
            f" {losses.calls} calls, {losses.untracked} untracked"
            if losses
            else "nothing lost"
        )
        say(f"{self._events} events in {seconds:.1f} s, {lost}")
        if self._session.nameless:
            say(
                f"{self._session.nameless} call stacks have no names"
                f" ({self._session.naming_problem}): who imports there, and what that needs, is"
                " unknown"
            )
        if self._request.output is not None and self._writer is not None:
            size = self._request.output.stat().st_size
            say(f"{size:,} bytes in {self._request.output}; now:")
            say(f"  dmabuf-tool report {self._request.output}")

    def _status(self) -> int:
        if self._command is None:
            return 0
        status = self._command.poll()
        if status is None:
            return 0
        return status if status >= 0 else 128 - status
