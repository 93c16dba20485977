# SPDX-License-Identifier: GPL-2.0-or-later
"""Device and driver changes while a trace runs, from the kernel's uevents (lib/kobject_uevent.c).

pyroute2 takes 16 MB and is imported in a child only. Its socket joins the groups of the kernel and
of udev; only the kernel's is wanted: udev repeats every event later, with a binary header that
pyroute2 before 0.8 cannot decode. `get()` gives a tuple up to 0.8 and a list from 0.9; both are
iterated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dmabuf_tool.kernel import parts
from dmabuf_tool.kernel.watcher import Watcher

_KERNEL_GROUP: Final = 1

_ACTIONS: Final = frozenset({"add", "remove", "bind", "unbind", "change", "move"})

# Subsystems whose events flood and say nothing of devices that do DMA.
_IGNORED: Final = frozenset({"queues", "net", "tty", "vc", "block", "bdi", "cpu", "memory", "slab"})


@dataclass(frozen=True)
class Change:
    """One change: `action` is add, remove, bind, unbind, change or move.

    `device` is the last part of the path, which is the device's name, or the module's for the
    subsystem "module". `path` is below /sys.
    """

    action: str
    subsystem: str
    device: str
    driver: str | None
    path: str


def watch() -> Watcher:
    """Start watching; `changes(watcher.read())` gives what happened.

    Raises OSError when no child can be started; a missing pyroute2 is the watcher's `problem`.
    """
    return Watcher(_source)


def changes(events: list[dict[str, Any]]) -> list[Change]:
    """Turn what a watcher read into changes."""
    return [Change(**event) for event in events]


def change(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Take what matters from one uevent's variables; None for one that does not matter."""
    action, subsystem = fields.get("ACTION"), fields.get("SUBSYSTEM", "")
    path = fields.get("DEVPATH")
    if action not in _ACTIONS or not path or subsystem in _IGNORED:
        return None
    return {
        "action": action,
        "subsystem": subsystem,
        "device": path.rpartition("/")[2],
        "driver": fields.get("DRIVER"),
        "path": path,
    }


def _source() -> Iterator[dict[str, Any]]:
    """Listen, in the child."""
    with parts.module("pyroute2", "netlink.uevent").UeventSocket() as socket:
        try:
            socket.bind(groups=_KERNEL_GROUP)
        except TypeError:  # before 0.8 the method has no argument and joins all groups
            plain = parts.module("pyroute2", "netlink.nlsocket").NetlinkSocket
            plain.bind(socket, groups=_KERNEL_GROUP)
        while True:
            for message in socket.get():
                if (event := change(message)) is not None:
                    yield event
