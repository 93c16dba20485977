# SPDX-License-Identifier: GPL-2.0-or-later
"""The loader: a forked child compiles, attaches, hands the fds over and is gone.

bcc brings LLVM (over 100 MB) into whoever imports it; the tracing process never does. The child
sends one JSON message with the file descriptors of maps, programs and links and exits. All that
is left in the kernel hangs on those descriptors: when their holder dies, it is gone too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import children, privileges
from dmabuf_tool.probes import handover, plan, source
from dmabuf_tool.probes.workshop import Workshop


@dataclass(slots=True)
class Loaded:
    """What the child handed over. Closing it detaches everything."""

    ways: list[dict[str, Any]] = field(default_factory=list)
    providers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Level-2 providers by module: how each stands (modules.Standing)."""
    maps: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    twins: dict[str, tuple[str, int]] = field(default_factory=dict)
    """First programs of two: the second's name, and the index of both in the map `taken`."""
    links: dict[str, int] = field(default_factory=dict)
    """By program."""
    has_dma_flags: bool = False
    page_struct_size: int = 64

    def take(self, message: dict[str, Any], fds: list[int]) -> None:
        """Take what a loader's child sent: at first, and from each that came later."""
        rest = iter(fds)
        self.maps |= {name: next(rest) for name in message["maps"]}
        for kept in (self.programs, self.links):
            fresh = {name: next(rest) for name in message["programs"]}
            for name in fresh.keys() & kept.keys():
                os.close(kept[name])  # of a module that was unloaded and came again
            kept.update(fresh)
        self.twins |= {name: (second, at) for name, (second, at) in message["twins"].items()}
        self.ways += message["ways"]
        self.providers |= {one["module"]: one for one in message["providers"]}

    def close(self) -> None:
        """Detach every probe and free every map."""
        for fd in (*self.links.values(), *self.programs.values(), *self.maps.values()):
            os.close(fd)
        self.links, self.programs, self.maps = {}, {}, {}

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The hooks this kernel did not allow."""
        return [way for way in self.ways if way["method"] == "missing"]


class Loading:
    """A load under way: `start()` forks, `finish()` waits, so the parent can import meanwhile."""

    def __init__(self, pid: int, channel: socket.socket, workshop: Workshop) -> None:
        self._pid, self._channel, self._workshop = pid, channel, workshop

    def finish(self, stop: int | None = None) -> Loaded:
        """Wait for the child, or for `stop` to become readable.

        Raises ToolError with the child's one line, or when stopped.
        """
        channel = self._channel.fileno()
        ready, _, _ = select.select([channel, *([] if stop is None else [stop])], [], [])
        if channel not in ready:
            raise ToolError("stopped before tracing began; nothing was recorded")
        try:
            message, fds = handover.receive(self._channel)
        finally:
            self.abandon()
        if "error" in message:
            for fd in fds:
                os.close(fd)
            raise ToolError(message["error"])
        loaded = Loaded(
            has_dma_flags=message["has_dma_flags"],
            page_struct_size=message["page_struct_size"],
        )
        loaded.take(message, fds)
        return loaded

    def abandon(self) -> None:
        """End the child, loaded or not; may be called twice."""
        if self._pid:
            self._channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._workshop.close()


def start(
    options: source.Options,
    hooks: tuple[plan.Hook, ...] = plan.HOOKS,
    workshop: Workshop | None = None,
) -> Loading:
    """Fork the child that compiles, in a workshop that may be open already, and attaches.

    Raises ToolError without root.
    """
    workshop = workshop or Workshop()
    privileges.require_root()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = children.fork()
    if pid:
        theirs.close()
        return Loading(pid, ours, workshop)
    ours.close()
    _child(theirs, options, hooks, workshop)
    raise AssertionError("unreachable")


def _child(
    channel: socket.socket,
    options: source.Options,
    hooks: tuple[plan.Hook, ...],
    workshop: Workshop,
) -> None:
    """Load, report, and leave without running the parent's exit handlers."""
    # Only here: hashing, BTF and the compiler are megabytes that the tracing parent does without.
    from dmabuf_tool.probes.attacher import attach

    fds: list[int] = []
    try:
        message, fds = attach(options, hooks, workshop)
    except ToolError as error:
        message = {"error": str(error)}
    except BaseException:
        sys.excepthook(*sys.exc_info())
        message = {"error": "the loader failed; the lines above are a bug report's content"}
    try:
        handover.send(channel, message, fds)
    finally:
        os._exit(0)
