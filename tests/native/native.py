# SPDX-License-Identifier: GPL-2.0-or-later
"""The product's loader with a subject of the tests' own (native.bpf.c), on any kernel with BPF.

A raw tracepoint is all it needs: it loads where there are no kprobes and no dma-bufs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

from dmabuf_tool.kernel.libraries import libbpf, libc
from dmabuf_tool.probes import loader, plan, source

HOOK = plan.Hook("load", "native", (), True, False, "the load", raw_tracepoint="sys_enter")
MAGIC = 0x646D6162
GETPPID = {"x86_64": 110, "aarch64": 173}[platform.machine()]
MOST = 64
"""Events one call can send."""

LOST_EVENTS = 0
"""Index in the counters: ST_EVENTS_LOST, bpf/events.h."""

source.SUBJECTS["native"] = (str(Path(__file__).with_name("native.bpf.c")),)


def options(event_ring: int) -> source.Options:
    """Rings of this size in bytes, and a small one for chunks."""
    return source.Options(event_ring=event_ring, chunk_ring=1 << 16)


def load(event_ring: int, hooks: tuple[plan.Hook, ...] = (HOOK,)) -> loader.Loaded:
    """Load through the child. Raises ToolError."""
    loading = loader.start(options(event_ring), hooks)
    try:
        return loading.finish()
    finally:
        loading.abandon()


def send(count: int) -> None:
    """Have the program send so many events, MOST with each call."""
    while count > 0:
        libc().syscall(GETPPID, ctypes.c_ulong(min(count, MOST)), ctypes.c_ulong(MAGIC))
        count -= MOST


def program_id(fd: int) -> int:
    """The kernel's id of a loaded program."""
    info = ctypes.create_string_buffer(256)
    length = ctypes.c_uint32(len(info))
    if libbpf().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "bpf_obj_get_info_by_fd")
    return int(struct.unpack_from("<I", info, 4)[0])  # struct bpf_prog_info: type, id


def exists(program: int) -> bool:
    """Whether a program of this id is in the kernel."""
    fd = libbpf().bpf_prog_get_fd_by_id(program)
    if fd >= 0:
        os.close(fd)
        return True
    number = ctypes.get_errno()
    if number != errno.ENOENT:
        raise OSError(number, "bpf_prog_get_fd_by_id")
    return False
