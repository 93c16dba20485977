# SPDX-License-Identifier: GPL-2.0-or-later
"""Attaching programs: every link is a file descriptor, and detached when that is closed."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from dmabuf_tool.kernel.libraries import libbpf, libc
from dmabuf_tool.probes.bpf import TRACE_KPROBE_MULTI, LoadError

_KPROBE_PMU: Final = Path("/sys/bus/event_source/devices/kprobe")
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_IOC_ENABLE: Final = 0x2400  # PERF_EVENT_IOC_ENABLE
_IOC_SET_BPF: Final = 0x40042408  # PERF_EVENT_IOC_SET_BPF


class _KprobeMultiOptions(ctypes.Structure):
    """struct bpf_link_create_opts with its kprobe_multi arm (libbpf 1.0)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("link_flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cnt", ctypes.c_uint32),
        ("syms", ctypes.c_void_p),
        ("addrs", ctypes.c_void_p),
        ("cookies", ctypes.c_void_p),
        ("spare", ctypes.c_uint64 * 4),
    )


def attach_tracing(program: int) -> int:
    """Attach an fentry or fexit program; returns the link's fd."""
    return _raw_tracepoint_open(None, program)


def attach_raw_tracepoint(program: int, name: str) -> int:
    """Attach to a raw tracepoint; returns the link's fd."""
    return _raw_tracepoint_open(name.encode(), program)


def _raw_tracepoint_open(name: bytes | None, program: int) -> int:
    fd: int = libbpf().bpf_raw_tracepoint_open(name, program)
    if fd < 0:
        number = ctypes.get_errno()
        what = name.decode() if name else "fentry"
        raise LoadError(f"cannot attach to {what} ({os.strerror(number)})", number)
    return fd


def have_kprobes() -> bool:
    """Whether the kernel has the kprobe PMU (CONFIG_KPROBE_EVENTS, Linux 4.17)."""
    return _KPROBE_PMU.is_dir() and os.uname().machine in _PERF_EVENT_OPEN


def attach_kprobe(program: int, function: str, at_return: bool) -> int:
    """Attach a kprobe through the perf PMU; returns the event's fd, which is all there is of it."""
    kind = int((_KPROBE_PMU / "type").read_text())
    config = 0
    if at_return:  # format/retprobe says "config:0"
        bit = int((_KPROBE_PMU / "format" / "retprobe").read_text().split(":")[1])
        config = 1 << bit
    name = ctypes.create_string_buffer(function.encode())
    # struct perf_event_attr, version 1 (72 bytes): type, size, config, period, sample_type,
    # read_format, flags, wakeup, bp_type, config1 = function name, config2 = offset.
    attr = struct.pack(
        "<IIQQQQQIIQQ", kind, 72, config, 1, 0, 0, 0, 0, 0, ctypes.addressof(name), 0
    )
    fd: int = libc().syscall(
        ctypes.c_long(_PERF_EVENT_OPEN[os.uname().machine]),
        attr,
        ctypes.c_int(-1),
        ctypes.c_int(0),
        ctypes.c_int(-1),
        ctypes.c_ulong(8),  # PERF_FLAG_FD_CLOEXEC
    )
    number = ctypes.get_errno()
    if fd < 0:
        raise LoadError(f"cannot probe {function} ({os.strerror(number)})", number)
    for request, argument in ((_IOC_SET_BPF, program), (_IOC_ENABLE, 0)):
        if libc().ioctl(fd, ctypes.c_ulong(request), ctypes.c_long(argument)) < 0:
            number = ctypes.get_errno()
            os.close(fd)
            raise LoadError(f"cannot probe {function} ({os.strerror(number)})", number)
    return fd


def attach_kprobe_multi(program: int, function: str, at_return: bool) -> int:
    """Attach through ftrace's fprobe, with preemption off; returns the link's fd.

    Linux 5.18: 0dcac2725406 ("bpf: Add multi kprobe link").
    """
    name = ctypes.create_string_buffer(function.encode())
    names = (ctypes.c_char_p * 1)(ctypes.cast(name, ctypes.c_char_p))
    options = _KprobeMultiOptions(
        sz=ctypes.sizeof(_KprobeMultiOptions),
        flags=1 if at_return else 0,  # BPF_F_KPROBE_MULTI_RETURN
        cnt=1,
        syms=ctypes.addressof(names),
    )
    fd: int = libbpf().bpf_link_create(program, 0, TRACE_KPROBE_MULTI, ctypes.byref(options))
    if fd < 0:
        number = ctypes.get_errno()
        raise LoadError(f"cannot probe {function} ({os.strerror(number)})", number)
    return fd
