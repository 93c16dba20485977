# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends of processes and changes of their program, from the process connector
(drivers/connector/cn_proc.c; CONFIG_PROC_EVENTS, CAP_NET_ADMIN).

A buffer held by a process that ended, a command name that was another's: /proc no longer tells.
pyroute2 is imported in a child only, which also thins out: threads, forks and
changes of ids are dropped there. pyroute2 has the socket since 0.7.4; before, the same messages
are read from its plain netlink socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dmabuf_tool.kernel import parts
from dmabuf_tool.kernel.watcher import Watcher

# include/uapi/linux/cn_proc.h, include/uapi/linux/connector.h
EXEC: Final = 0x00000002
EXIT: Final = 0x80000000
_CN_IDX_PROC: Final = 1
_CN_VAL_PROC: Final = 1
_LISTEN: Final = 1

# struct nlmsghdr; struct cn_msg; struct proc_event's what, cpu, timestamp_ns
_NLMSG: Final = struct.Struct("=IHHII")
_CN_MSG: Final = struct.Struct("=IIIIHH")
_EVENT: Final = struct.Struct("=IIQ")
_NLMSG_DONE: Final = 3


@dataclass(frozen=True)
class ProcessEvent:
    """`kind` is "exit" or "exec"; `time_ns` is CLOCK_MONOTONIC; `code` the wait status, or None."""

    kind: str
    pid: int
    time_ns: int
    code: int | None


def watch() -> Watcher:
    """Start watching; `events(watcher.read())` gives what happened.

    Raises OSError when no child can be started. A kernel without the connector, a missing
    privilege or pyroute2 is the watcher's `problem`.
    """
    return Watcher(_source)


def events(read: list[dict[str, Any]]) -> list[ProcessEvent]:
    """Turn what a watcher read into events."""
    return [ProcessEvent(**event) for event in read]


def process_event(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Take what matters from one message; None for threads and other kinds.

    A process is its first thread: pid and tgid are the same.
    """
    what = fields.get("what")
    if what not in {EXEC, EXIT} or fields.get("process_pid") != fields.get("process_tgid"):
        return None
    return {
        "kind": "exit" if what == EXIT else "exec",
        "pid": fields["process_tgid"],
        "time_ns": fields["timestamp_ns"],
        "code": fields.get("exit_code"),
    }


def parse(data: bytes) -> Iterator[dict[str, Any]]:
    """Parse netlink messages of the connector into the fields of pyroute2's own classes."""
    while len(data) >= _NLMSG.size:
        length = _NLMSG.unpack_from(data)[0]
        message = data[_NLMSG.size + _CN_MSG.size : length]
        if len(message) >= _EVENT.size + 8:
            what, _, time_ns = _EVENT.unpack_from(message)
            pid, tgid = struct.unpack_from("=II", message, _EVENT.size)
            fields = {
                "what": what,
                "timestamp_ns": time_ns,
                "process_pid": pid,
                "process_tgid": tgid,
            }
            if what == EXIT and len(message) >= _EVENT.size + 12:
                fields["exit_code"] = struct.unpack_from("=I", message, _EVENT.size + 8)[0]
            yield fields
        data = data[max(_NLMSG.size, length + 3 & ~3) :]


def _source() -> Iterator[dict[str, Any]]:
    """Listen, in the child."""
    try:
        connector = parts.module("pyroute2", "netlink.connector.cn_proc")
    except ImportError:
        messages = _plain_socket()
    else:
        messages = _proc_event_socket(connector.ProcEventSocket)
    for fields in messages:
        if (event := process_event(fields)) is not None:
            yield event


def _proc_event_socket(kind: Any) -> Iterable[dict[str, Any]]:
    """Listen with pyroute2 0.7.4 and later; `get()` gives a tuple, from 0.9 on a list."""
    with kind() as socket:
        socket.bind()
        socket.control(listen=True)
        while True:
            yield from socket.get()


def _plain_socket() -> Iterable[dict[str, Any]]:
    """Listen with pyroute2 before 0.7.4, whose netlink socket knows no connector messages."""
    connector = parts.module("pyroute2", "netlink").NETLINK_CONNECTOR
    with parts.module("pyroute2", "netlink.nlsocket").NetlinkSocket(connector) as socket:
        socket.bind(groups=_CN_IDX_PROC)
        listen = _CN_MSG.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0) + struct.pack("=I", _LISTEN)
        header = _NLMSG.pack(_NLMSG.size + len(listen), _NLMSG_DONE, 0, 0, 0)
        socket.sendto(header + listen, (0, 0))
        while True:
            yield from parse(socket.recv(1 << 16))
