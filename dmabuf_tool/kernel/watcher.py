# SPDX-License-Identifier: GPL-2.0-or-later
"""A child process that watches something and tells of it, one JSON line an event, over a pipe.

For sources whose library is large or whose socket floods: the library is imported and the flood
thinned out in the child, and the parent stays small. The child keeps none of the parent's
descriptors (a BPF link it inherited would keep probes alive), ignores the terminal's Ctrl-C, and
dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from dmabuf_tool.kernel import children

_READ: Final = 1 << 16

# A line longer than this is not one of ours.
_LONGEST: Final = 1 << 20

Source = Callable[[], Iterator[dict[str, Any]]]
"""Yields events for ever; runs in the child and may import what it likes."""


class Watcher:
    """The parent's end. Poll `fileno()` and then `read()`; `close()` ends the child.

    `problem` says why the child gave up, "" while it lives.
    """

    def __init__(self, source: Source) -> None:
        """Start the child. Raises OSError when it cannot be started."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.problem = ""
        self._rest = b""
        self._pid = children.fork()
        if self._pid == 0:
            _child(source, writer)
        os.close(writer)
        os.set_blocking(reader, False)
        self._fd = reader

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something to read; -1 if closed."""
        return self._fd

    def read(self) -> list[dict[str, Any]]:
        """Take the events that are there; never waits."""
        events: list[dict[str, Any]] = []
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                break
            if not data:
                how = self._collect()
                self.problem = self.problem or f"the watching process ended ({how})"
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for event in map(json.loads, lines):
                if "problem" in event:
                    self.problem = event["problem"]
                else:
                    events.append(event)
            if len(self._rest) > _LONGEST:
                self.problem = "the watching process writes no lines"
                self.close()
        return events

    def close(self) -> None:
        """End the child and collect it; may be called twice."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._collect()

    def _collect(self) -> str:
        """Wait for the child, which ends; says how it did."""
        os.close(self._fd)
        self._fd = -1
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:
            return "collected by somebody else"
        return f"signal {-code}" if code < 0 else f"status {code}"

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _child(source: Source, writer: int) -> None:
    """Run the source until it ends, its reader goes or the parent dies. Does not return."""
    try:
        os.closerange(3, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            for event in source():
                _send(writer, event)
        except BrokenPipeError:
            pass
        except Exception as error:
            with contextlib.suppress(OSError):
                _send(writer, {"problem": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _send(writer: int, event: dict[str, Any]) -> None:
    """Write one event as one line; waits while the pipe is full, so the source's queue fills."""
    data = json.dumps(event, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[os.write(writer, data) :]
