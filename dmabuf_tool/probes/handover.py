# SPDX-License-Identifier: GPL-2.0-or-later
"""One JSON message with file descriptors over a Unix socket, between the tracer and its loaders."""

from __future__ import annotations

import array
import json
import socket
from typing import Any, Final

from dmabuf_tool.errors import ToolError

_AT_ONCE: Final = 200
"""Descriptors in one piece: the kernel passes up to 253 (SCM_MAX_FD, include/net/scm.h)."""
_DIED: Final = "the loader died before it could attach (out of memory?)"


def send(channel: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """Send a message; the descriptors stay the sender's too."""
    body = json.dumps(message).encode()
    head = len(body).to_bytes(4, "little") + len(fds).to_bytes(4, "little")
    channel.sendall(head + body)
    for start in range(0, len(fds), _AT_ONCE):
        socket.send_fds(channel, [b"."], fds[start : start + _AT_ONCE])


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The other side's message and descriptors, which are closed on exec.

    Raises ToolError when it died without a word.
    """
    head = _exactly(channel, 8)
    body = _exactly(channel, int.from_bytes(head[:4], "little"))
    wanted = int.from_bytes(head[4:], "little")
    fds: list[int] = []
    while len(fds) < wanted:
        fds += _piece(channel)
    message: dict[str, Any] = json.loads(body)
    return message, fds


def _exactly(channel: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = channel.recv(length - len(data))
        if not part:
            raise ToolError(_DIED)
        data += part
    return data


def _piece(channel: socket.socket) -> list[int]:
    space = socket.CMSG_LEN(_AT_ONCE * array.array("i").itemsize)
    data, ancillary, _, _ = channel.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
    if not data or not fds:
        raise ToolError(_DIED)
    return list(fds)
