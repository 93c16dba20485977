# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading words of kernel memory through a BPF program that runs once and is attached nowhere.

BPF_PROG_TEST_RUN runs a raw tracepoint program with arguments of the caller's choice (Linux 5.10:
1b4d60ec162f ("bpf: Enable BPF_PROG_TEST_RUN for raw_tracepoint")). The program reads the word at
its first argument and returns the half its second argument chooses: a return value has 32 bits.

What is read may be a kernel pointer. It stays in the process that asked.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from dmabuf_tool.kernel.libraries import libbpf
from dmabuf_tool.probes import bpf

_CODE: Final = struct.pack(
    "<" + "BBhi" * 14,
    *(0x79, 0x13, 0, 0),  # r3 = *(u64 *)(r1 + 0): the address
    *(0x79, 0x16, 8, 0),  # r6 = *(u64 *)(r1 + 8): the shift
    *(0xB7, 0x00, 0, 0),  # r0 = 0
    *(0x7B, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = r0
    *(0xBF, 0xA1, 0, 0),  # r1 = r10
    *(0x07, 0x01, 0, -8),  # r1 += -8
    *(0xB7, 0x02, 0, 8),  # r2 = 8
    *(0x85, 0x00, 0, 113),  # call bpf_probe_read_kernel
    *(0x79, 0xA0, -8, 0),  # r0 = *(u64 *)(r10 - 8)
    *(0x15, 0x06, 1, 0),  # if r6 == 0 skip the next
    *(0x77, 0x00, 0, 32),  # r0 >>= 32
    *(0x67, 0x00, 0, 32),  # r0 <<= 32
    *(0x77, 0x00, 0, 32),  # r0 >>= 32
    *(0x95, 0x00, 0, 0),  # exit
)


class _RunOptions(ctypes.Structure):
    """struct bpf_test_run_opts (libbpf 1.0)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class Peek:
    """Reads kernel words; use as a context manager. Raises bpf.LoadError where BPF is refused."""

    def __init__(self) -> None:
        self._program = bpf.load_program(bpf.PROG_RAW_TRACEPOINT, "peek", _CODE)

    def word(self, address: int) -> int:
        """The 64-bit word at an address; 0 where it cannot be read."""
        return self._half(address, 0) | self._half(address, 1) << 32

    def _half(self, address: int, upper: int) -> int:
        arguments = struct.pack("<QQ", address, upper)
        options = _RunOptions(
            sz=ctypes.sizeof(_RunOptions),
            ctx_in=ctypes.cast(ctypes.c_char_p(arguments), ctypes.c_void_p),
            ctx_size_in=len(arguments),
        )
        if libbpf().bpf_prog_test_run_opts(self._program, ctypes.byref(options)) < 0:
            number = ctypes.get_errno()
            raise bpf.LoadError(f"cannot run a BPF program ({os.strerror(number)})", number)
        return int(options.retval)

    def close(self) -> None:
        """Free the program."""
        if self._program >= 0:
            os.close(self._program)
            self._program = -1

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
