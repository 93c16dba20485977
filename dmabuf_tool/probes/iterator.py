# SPDX-License-Identifier: GPL-2.0-or-later
"""The dma-bufs of the system by the kernel's BPF iterator (Linux 6.16), for where bufinfo is shut.

bufinfo needs debugfs and waits for every buffer's reservation lock; the iterator needs neither. It
is compiled like the probes, in a child, which costs a second: `list` asks bufinfo first.
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
from dmabuf_tool.probes import bpf, source, texts
from dmabuf_tool.probes.workshop import Workshop

_TRACE_ITER: Final = 28  # BPF_TRACE_ITER, include/uapi/linux/bpf.h
_TARGET: Final = "bpf_iter_dmabuf"

# struct record of bpf/iterator.bpf.c
_RECORD: Final = struct.Struct("=QQQq64s")
_TEXT: Final = 32

# Macro -> struct, member; a dot leads into an embedded struct.
_OFFSETS: Final = {
    "DMA_BUF_FILE": ("dma_buf", "file"),
    "DMA_BUF_SIZE": ("dma_buf", "size"),
    "DMA_BUF_EXP_NAME": ("dma_buf", "exp_name"),
    "DMA_BUF_NAME": ("dma_buf", "name"),
    "DMA_BUF_ATTACHMENTS": ("dma_buf", "attachments"),
    "ATTACHMENT_NODE": ("dma_buf_attachment", "node"),
    "ATTACHMENT_DEV": ("dma_buf_attachment", "dev"),
    "DEVICE_NAME": ("device", "kobj.name"),
    "FILE_F_INODE": ("file", "f_inode"),
    "FILE_F_REF": ("file", "f_ref"),
    "INODE_I_INO": ("inode", "i_ino"),
}


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
    program = bpf.load_program(bpf.PROG_TRACING, "dump", _compile(btf), _TRACE_ITER, target)
    link = libbpf().bpf_link_create(program, 0, _TRACE_ITER, None)
    iterator = libbpf().bpf_iter_create(link) if link >= 0 else -1
    if iterator < 0:
        raise ToolError(f"the dmabuf iterator cannot be used: {os.strerror(ctypes.get_errno())}")
    with open(iterator, "rb", buffering=0) as records:
        return records.readall()


def _compile(btf: Btf) -> bytes:
    """Compile bpf/iterator.bpf.c for the structs of this kernel. Raises ToolError."""
    offsets = [f"#define {macro} {_offset(btf, *member)}" for macro, member in _OFFSETS.items()]
    text = "\n".join([*offsets, texts.bpf_file("iterator.bpf.c")])
    with Workshop() as workshop:
        return workshop.compile([source.Unit(text, ("dump",))]).programs["dump"].instructions


def _offset(btf: Btf, name: str, member: str) -> int:
    """Look up one offset. Raises ToolError."""
    outer, _, inner = member.partition(".")
    members = btf.nested(name, outer) if inner else btf.members(name)
    found = members.get(inner or outer)
    if found is None:
        raise ToolError(f"the kernel's struct {name} has no member {member}")
    return found.offset
