# SPDX-License-Identifier: GPL-2.0-or-later
"""Try whether this kernel takes a probe: the only sure answer to "can I trace here".

Configuration, lockdown, security modules and container limits each may refuse; only trying tells.
A trial attaches a program of two instructions (return 0), or an event nobody reads, to one function
and removes it again within microseconds.

Structures: union bpf_attr in include/uapi/linux/bpf.h, struct perf_event_attr in
include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SYSCALLS: Final = {"x86_64": (321, 298), "aarch64": (280, 241)}  # bpf, perf_event_open

_BPF_PROG_LOAD: Final = 5
_BPF_RAW_TRACEPOINT_OPEN: Final = 17
_PROG_TYPE_RAW_TRACEPOINT: Final = 17
_PROG_TYPE_TRACING: Final = 26
_TRACE_FENTRY: Final = 24

# r0 = 0; exit
_PROGRAM: Final = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
_LICENSE: Final = b"GPL\0"

# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
# prog_name, prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size, func_info,
# func_info_cnt, line_info_rec_size, line_info, line_info_cnt, attach_btf_id, attach_prog_fd
_LOAD: Final = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")
_OPEN: Final = struct.Struct("=QII")

_PERF_ATTR_SIZE: Final = 112  # PERF_ATTR_SIZE_VER5
_PERF_DISABLED: Final = 1
_PERF_FLAG_FD_CLOEXEC: Final = 8


@dataclass(frozen=True)
class Trial:
    """Whether it worked, and at which step and why not."""

    ok: bool
    detail: str


def fentry(function: str, btf_id: int) -> Trial:
    """Attach to a kernel function's entry by a BPF trampoline; `btf_id` from kernel.btf."""
    try:
        program = _load(_PROG_TYPE_TRACING, _TRACE_FENTRY, btf_id)
    except OSError as error:
        return _failed(f"the kernel refuses to load a program for {function}", error)
    try:
        os.close(_bpf(_BPF_RAW_TRACEPOINT_OPEN, _OPEN.pack(0, program, 0)))
    except OSError as error:
        return _failed(f"the kernel refuses to attach to {function}", error)
    finally:
        os.close(program)
    return Trial(True, f"attached to {function}")


def raw_tracepoint(name: str = "sched_switch") -> Trial:
    """Load a program and attach it to a raw tracepoint: BPF tracing at its simplest."""
    try:
        program = _load(_PROG_TYPE_RAW_TRACEPOINT, 0, 0)
    except OSError as error:
        return _failed("the kernel refuses to load BPF programs", error)
    text = ctypes.create_string_buffer(name.encode())
    try:
        os.close(_bpf(_BPF_RAW_TRACEPOINT_OPEN, _OPEN.pack(ctypes.addressof(text), program, 0)))
    except OSError as error:
        return _failed(f"the kernel refuses raw tracepoint {name}", error)
    finally:
        os.close(program)
    return Trial(True, "programs load and attach to raw tracepoints")


def kprobe(function: str, root: Path = Path("/")) -> Trial:
    """Make a kprobe event on a kernel function; nothing is attached to it."""
    try:
        kind = int((root / "sys/bus/event_source/devices/kprobe/type").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Trial(False, "the kernel has no kprobe events")
    name = ctypes.create_string_buffer(function.encode())
    attr = bytearray(_PERF_ATTR_SIZE)
    struct.pack_into("=II", attr, 0, kind, _PERF_ATTR_SIZE)
    struct.pack_into("=Q", attr, 40, _PERF_DISABLED)
    struct.pack_into("=Q", attr, 56, ctypes.addressof(name))  # kprobe_func; offset behind it is 0
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
    try:
        os.close(_call(1, ctypes.byref(buffer), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC))
    except OSError as error:
        return _failed(f"the kernel refuses a kprobe on {function}", error)
    return Trial(True, f"set on {function}")


def _load(kind: int, attach: int, btf_id: int) -> int:
    """Load the program; returns its descriptor, raises OSError."""
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    license_ = ctypes.create_string_buffer(_LICENSE, len(_LICENSE))
    return _bpf(
        _BPF_PROG_LOAD,
        _LOAD.pack(
            *(kind, len(_PROGRAM) // 8, ctypes.addressof(program), ctypes.addressof(license_)),
            *(0, 0, 0, 0, 0, b"dmabuf_trial", 0, attach),
            *(0, 0, 0, 0, 0, 0, 0, btf_id, 0),
        ),
    )


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2); raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(0, command, ctypes.byref(buffer), len(attributes))


def _call(which: int, *arguments: object) -> int:
    """Make a system call by its column in the table above; raises OSError."""
    numbers = _SYSCALLS.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"{os.uname().machine} is not supported")
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = libc.syscall(ctypes.c_long(numbers[which]), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _failed(what: str, error: OSError) -> Trial:
    """Say what was refused and with which errno."""
    # ENOTSUPP is the kernel's own and has no text in libc.
    name = errno.errorcode.get(error.errno or 0, "ENOTSUPP" if error.errno == 524 else str(error))
    return Trial(False, f"{what} ({name})")
