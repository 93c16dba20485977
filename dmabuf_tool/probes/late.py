# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers whose modules come while a trace runs, attached by a loader of their own.

The tracing process has threads by then and must not fork: the loader is a new interpreter, which
gets the descriptors of the maps over a socket and gives back programs and links.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import children
from dmabuf_tool.probes import handover
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.source import Options

_SYS_MODULE: Final = "/sys/module"
_TYPES: Final = "/sys/kernel/btf"
_ATTACHED, _WAITING, _ABSENT, _LEFT_OUT = "attached", "waiting", "absent", "left out"  # modules.py

# Isolated from the environment, but with our own sys.path: from a checkout as from a package.
_CHILD: Final = "import sys; sys.path[:] = {path!r}; from {module} import main; main({fd})"


class Late:
    """Watches for modules. `look()` a few times a second; `close()` at the end."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded, self._options = loaded, options
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._wanted: list[str] = []
        self._begin = 0.0
        self._places = {name: _place(name) for name in loaded.providers}

    def look(self) -> tuple[list[str], dict[str, Any]]:
        """See whether a module came, or a loader is done.

        Returns lines for the user, and what came, as an entry of the capture's inventory; both
        mostly empty.
        """
        if self._channel is None:
            came = self._came()
            if came:
                self._start(came)
            return [], {}
        ready, _, _ = select.select([self._channel], [], [], 0)
        return self._finish() if ready else ([], {})

    def describe(self) -> list[str]:
        """Lines about the providers as they stand."""
        by_state: dict[str, list[str]] = {}
        for one in self._loaded.providers.values():
            by_state.setdefault(one["state"], []).append(one["module"])
        parts = []
        if _ATTACHED in by_state:
            parts.append(f"level 2 of {', '.join(by_state[_ATTACHED])}")
        if _WAITING in by_state:
            parts.append(f"waits for modules {', '.join(by_state[_WAITING])}")
        lines = ["; ".join(parts)] if parts else []
        return lines + [_left_out(one) for one in self._loaded.providers.values() if one["why"]]

    def close(self) -> None:
        """End a loader under way."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _came(self) -> list[str]:
        """Modules that are there and were not; one that is gone is waited for again.

        Only probes by kprobes let their module go; BPF trampolines hold it.
        """
        came = []
        for name, standing in self._loaded.providers.items():
            place = _place(name)
            if place != self._places[name] and standing["state"] != _ABSENT:
                standing["state"], standing["why"] = _WAITING, ""
            if place and standing["state"] in (_WAITING, _ABSENT):
                came.append(name)
            self._places[name] = place
        return came

    def _start(self, wanted: list[str]) -> None:
        self._wanted, self._begin = wanted, time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        code = _CHILD.format(path=sys.path, module=__name__, fd=theirs.fileno())
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is not its own, from the first moment on
            )
        maps = self._loaded.maps
        request = {"options": asdict(self._options), "modules": wanted, "maps": list(maps)}
        handover.send(ours, request, list(maps.values()))
        self._channel = ours

    def _finish(self) -> tuple[list[str], dict[str, Any]]:
        assert self._channel is not None
        try:
            message, fds = handover.receive(self._channel)
        except ToolError as error:
            message, fds = {"error": str(error)}, []
        self.close()
        if "error" in message:
            for fd in fds:
                os.close(fd)
            why = message["error"]
            message = {
                "ways": [],
                "programs": [],
                "twins": {},
                "maps": [],
                "providers": [
                    {"module": one, "state": _LEFT_OUT, "why": why} for one in self._wanted
                ],
            }
            fds = []
        self._loaded.take(message, fds)
        seconds = time.monotonic() - self._begin
        lines = []
        for standing in message["providers"]:
            if standing["state"] == _ATTACHED:
                lines.append(f"module {standing['module']} came: attached after {seconds:.1f} s")
            elif standing["state"] == _LEFT_OUT:
                lines.append(_left_out(standing))
        entry = {"ts_ns": time.monotonic_ns(), "ways": message["ways"]}
        return lines, {"providers": {**entry, "standing": message["providers"]}}


def _place(name: str) -> int:
    """A number of a module that is there with its types, another one when it was loaded again: the
    inode of its directory in sysfs, which is new each time (fs/kernfs/dir.c). 0: not there."""
    try:
        os.stat(f"{_TYPES}/{name}")
        return os.stat(f"{_SYS_MODULE}/{name}").st_ino
    except OSError:
        return 0


def _left_out(standing: dict[str, str]) -> str:
    """A line about a provider that could not be attached."""
    return f"level 2 of {standing['module']} is not seen: {standing['why']}"


def main(fd: int) -> None:
    """The loader: take the maps, attach what is wanted, hand it over, exit."""
    from dmabuf_tool.probes.attacher import join

    children.depend_on(os.getppid())
    with socket.socket(fileno=fd) as channel:
        request, fds = handover.receive(channel)
        maps = dict(zip(request["maps"], fds, strict=True))
        result: dict[str, Any]
        new: list[int] = []
        try:
            result, new = join(Options(**request["options"]), request["modules"], maps)
        except ToolError as error:
            result = {"error": str(error)}
        except BaseException:
            sys.excepthook(*sys.exc_info())
            result = {"error": "the loader failed; the lines above are a bug report's content"}
        handover.send(channel, result, new)
