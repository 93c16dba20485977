# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF maps and programs in the kernel: thin ctypes over libbpf.

bcc compiles; this loads, and links.py attaches. bcc's own loader reads the kernel's BTF once for
every fentry program, knows no module functions before 0.28, and makes kretprobes through tracefs,
which would stay behind after a kill -9. Everything here is a file descriptor: closed, it is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.libraries import libbpf
from dmabuf_tool.probes.functions import INFO, described

PROG_KPROBE, PROG_RAW_TRACEPOINT, PROG_TRACING, PROG_SYSCALL = 2, 17, 26, 31
TRACE_FENTRY, TRACE_FEXIT = 24, 25
TRACE_KPROBE_MULTI = 42

_LOG_SIZE: Final = 1 << 20
_SLEEPABLE: Final = 1 << 4  # BPF_F_SLEEPABLE, which is asked of PROG_SYSCALL


class LoadError(ToolError):
    """The kernel refused a program or an attachment; `errno` says how."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.errno = number


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A BPF map as BPF_MAP_CREATE takes it; sizes in bytes."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts up to what is used (libbpf 1.0; later versions append)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    )


class _MapOptions(ctypes.Structure):
    """struct bpf_map_create_opts (libbpf 1.0)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


MAP_RINGBUF: Final = 27


def create_map(spec: MapSpec) -> int:
    """Make a map; returns its fd. Raises LoadError."""
    options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=spec.flags)
    ring = spec.kind == MAP_RINGBUF  # bcc speaks of keys and values where there are none
    fd: int = libbpf().bpf_map_create(
        spec.kind,
        spec.name[:15].encode(),
        0 if ring else spec.key_size,
        0 if ring else spec.value_size,
        spec.max_entries,
        ctypes.byref(options),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise LoadError(f"cannot make BPF map {spec.name} ({os.strerror(number)})", number)
    return fd


def load_program(
    kind: int,
    name: str,
    code: bytes,
    functions: Mapping[int, str],
    attach_type: int = 0,
    btf_id: int = 0,
    btf_fd: int = 0,
) -> int:
    """Load a program, return its fd. `code` is whole BPF instructions of 8 bytes; `functions`
    those of an objects.Code, to be described to the kernel.

    Raises LoadError with the verifier's last words.
    """
    with described(functions) as (types, infos):
        options = _LoadOptions(
            sz=ctypes.sizeof(_LoadOptions),
            expected_attach_type=attach_type,
            prog_btf_fd=types,
            attach_btf_id=btf_id,
            attach_btf_obj_fd=btf_fd,
            func_info=ctypes.cast(ctypes.c_char_p(infos or None), ctypes.c_void_p),
            func_info_cnt=len(infos) // INFO.size,
            func_info_rec_size=INFO.size if infos else 0,
            prog_flags=_SLEEPABLE if kind == PROG_SYSCALL else 0,
        )
        return _load(kind, name, code, options)


def _load(kind: int, name: str, code: bytes, options: _LoadOptions) -> int:
    # libbpf asks again for a log by itself only at level 0 without a buffer; ask on failure.
    for log in (None, ctypes.create_string_buffer(_LOG_SIZE)):
        if log is not None:
            options.log_level, options.log_size = 1, _LOG_SIZE
            options.log_buf = ctypes.cast(log, ctypes.c_char_p)
        fd: int = libbpf().bpf_prog_load(
            kind,
            name[:15].encode(),
            b"GPL",
            code,
            ctypes.c_size_t(len(code) // 8),
            ctypes.byref(options),
        )
        number = ctypes.get_errno()
        if fd >= 0:
            return fd
        if number in (errno.EPERM, errno.ENOTSUPP if hasattr(errno, "ENOTSUPP") else 524):
            break
    words = log.value.decode("utf-8", "replace").strip().splitlines() if log is not None else []
    told = f": {' | '.join(words[-4:])}" if words else ""
    raise LoadError(f"cannot load BPF program {name} ({os.strerror(number)}){told}", number)


class _BtfInfo(ctypes.Structure):
    """struct bpf_btf_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("btf", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_uint64),
        ("name_len", ctypes.c_uint32),
        ("kernel_btf", ctypes.c_uint32),
    )


def module_types(name: str) -> int:
    """The fd of a module's BTF, which fentry on its functions needs.

    Linux 5.11: 290248a5b7d8 ("bpf: Allow to specify kernel module BTFs when attaching BPF
    programs"). Raises LoadError.
    """
    lib, number = libbpf(), ctypes.c_uint32(0)
    while not lib.bpf_btf_get_next_id(number, ctypes.byref(number)):
        fd: int = lib.bpf_btf_get_fd_by_id(number)
        if fd < 0:
            continue  # gone since
        label = ctypes.create_string_buffer(64)
        info = _BtfInfo(name=ctypes.addressof(label), name_len=len(label))
        length = ctypes.c_uint32(ctypes.sizeof(info))
        asked = lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length))
        if not asked and info.kernel_btf and label.value == name.encode():
            return fd
        os.close(fd)
    raise LoadError(f"the kernel gives no types of module {name}", errno.ENOENT)


def program_misses(fd: int) -> int:
    """Runs the kernel skipped because the program was already running on that CPU.

    bpf_prog_info.recursion_misses, Linux 5.12: 9ed9e9ba2337 ("bpf: Count the number of times
    recursion was prevented").
    """
    info = ctypes.create_string_buffer(256)
    length = ctypes.c_uint32(len(info))
    if libbpf().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(length)) or length.value < 216:
        return 0
    # Offset in struct bpf_prog_info (include/uapi/linux/bpf.h): after run_time_ns and run_cnt.
    return int(struct.unpack_from("<Q", info, 208)[0])
