# SPDX-License-Identifier: GPL-2.0-or-later
"""The dma-bufs of the system by the kernel's BPF iterator (Linux 6.16), for where bufinfo is shut.

bufinfo needs debugfs and waits for every buffer's reservation lock; the iterator needs neither. It
is compiled like the probes, in a child, where it did not come with the tool: `list` asks bufinfo
first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import children
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.kernel.bufinfo import Buffer, Bufinfo
from dmabuf_tool.kernel.libraries import libbpf
from dmabuf_tool.kernel.text import decode
from dmabuf_tool.probes import bpf, layout, texts
from dmabuf_tool.probes.layout import Structs
from dmabuf_tool.probes.source import Target, Unit
from dmabuf_tool.probes.workshop import Workshop

_TRACE_ITER: Final = 28  # BPF_TRACE_ITER, include/uapi/linux/bpf.h
_TARGET: Final = "bpf_iter_dmabuf"
_PROGRAM: Final = "dump"

# struct record of bpf/iterator.bpf.c
_RECORD: Final = struct.Struct("=QQQq64s")
_TEXT: Final = 32

STRUCTS: Final[Structs] = {
    "inode": {"i_ino": "u64 {}"},
    "file": {"f_inode": "struct inode *{}", "f_ref": "u64 {}"},
    "device": {"kobj.name": "const char *{}"},
    "dma_buf": {
        "size": "u64 {}",
        "file": "struct file *{}",
        "exp_name": "const char *{}",
        "name": "const char *{}",
        "attachments": "u64 {}",
    },
    "dma_buf_attachment": {"node": "u64 {}", "dev": "struct device *{}"},
}
"""What the program reads."""

# Seconds until the child is ended; an emulated machine needs a dozen for bcc.
_TIMEOUT: Final = 60


def read() -> Bufinfo:
    """Run the iterator; never raises. The answer has the form of bufinfo's.

    `flags` and `mode` are 0: the iterator does not tell. `status` is "absent" where the kernel has
    no such iterator or bcc is missing, "denied" without root.
    """
    if os.geteuid() != 0:
        return Bufinfo("denied", "only root loads BPF programs")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = children.fork()
    if pid == 0:
        _child(writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    if not data.startswith(b"+"):
        return Bufinfo("absent", decode(data[1:]) or "the reader of the iterator died")
    return Bufinfo("ok", "by the BPF iterator", parse(data[1:]))


def parse(data: bytes) -> tuple[Buffer, ...]:
    """Parse the records: a buffer, then its attachments."""
    found: list[tuple[tuple[int, int, int, bytes], list[str]]] = []
    for kind, *head, text in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
        if not kind:
            found.append(((head[0], head[1], head[2], text), []))
        elif found:
            found[-1][1].append(decode(text.partition(b"\0")[0]))
    return tuple(
        Buffer(
            ino=ino,
            size=size,
            exporter=decode(text[:_TEXT].partition(b"\0")[0]),
            name=decode(text[_TEXT:].partition(b"\0")[0]) or None,
            count=count,
            flags=0,
            mode=0,
            devices=tuple(devices),
        )
        for (ino, size, count, text), devices in found
    )


def _child(writer: int) -> None:
    """Answer with "+" and the records, or "-" and why not. Does not return."""
    signal.alarm(_TIMEOUT)
    try:
        try:
            answer = b"+" + _run()
        except ToolError as error:
            answer = b"-" + str(error).encode()
        with open(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _run() -> bytes:
    """Compile, load, and read the iterator to its end. Raises ToolError."""
    btf = Btf()
    target = btf.function(_TARGET)
    if not target:
        raise ToolError("this kernel has no dmabuf iterator (it came with Linux 6.16)")
    with Workshop() as workshop:
        code = workshop.compile([unit(Target.here())]).programs[_PROGRAM]
    filled = code.relocated({}, layout.values(btf, STRUCTS, ()))
    program = bpf.load_program(bpf.PROG_TRACING, _PROGRAM, filled, {}, _TRACE_ITER, target)
    link = libbpf().bpf_link_create(program, 0, _TRACE_ITER, None)
    iterator = libbpf().bpf_iter_create(link) if link >= 0 else -1
    if iterator < 0:
        raise ToolError(f"the dmabuf iterator cannot be used: {os.strerror(ctypes.get_errno())}")
    with open(iterator, "rb", buffering=0) as records:
        return records.readall()


def unit(target: Target) -> Unit:
    """The text of bpf/iterator.bpf.c."""
    defined = layout.define(STRUCTS)
    files = ("members.bpf.h", "iterator.bpf.c")
    text = "\n".join((defined.text, *(texts.bpf_file(name) for name in files)))
    return Unit(text, (_PROGRAM,), target.flags(), defined.names)
