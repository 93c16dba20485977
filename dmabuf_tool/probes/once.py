# SPDX-License-Identifier: GPL-2.0-or-later
"""A BPF program that is attached nowhere and runs when asked: what the kernel knows of itself.

BPF_PROG_TEST_RUN runs a raw tracepoint program with arguments of the caller's choice (Linux 5.10:
1b4d60ec162f ("bpf: Enable BPF_PROG_TEST_RUN for raw_tracepoint")), and those that are made for it
(5.14: 79a7f8bdb159 ("bpf: Introduce bpf_sys_bpf() helper and program type.")). Instructions are
written down, not compiled: there are a dozen, and compiling takes most of a start.

What is learned may be a kernel pointer. It stays in the process that asked.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from dmabuf_tool.kernel.libraries import libbpf
from dmabuf_tool.probes import bpf

ARGUMENTS: Final = 12
"""The most a raw tracepoint program gets (MAX_BPF_FUNC_ARGS, include/linux/bpf.h)."""

Instruction = tuple[int, int, int, int]
"""struct bpf_insn (include/uapi/linux/bpf.h): opcode, registers (16 times the source's number plus
the destination's), offset, value."""


RETURN_HALF: Final[Sequence[Instruction]] = (
    (0x15, 0x06, 1, 0),  # if r6 == 0 skip the next
    (0x77, 0x00, 0, 32),  # r0 >>= 32
    (0x67, 0x00, 0, 32),  # r0 <<= 32
    (0x77, 0x00, 0, 32),  # r0 >>= 32
    (0x95, 0x00, 0, 0),  # exit
)
"""The end of a program that knows 64 bits and can return 32: r6 says whether the upper ones."""


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


class Once:
    """A loaded program. Raises bpf.LoadError where BPF is refused."""

    def __init__(
        self, name: str, instructions: Sequence[Instruction], kind: int = bpf.PROG_RAW_TRACEPOINT
    ) -> None:
        code = b"".join(struct.pack("<BBhi", *one) for one in instructions)
        self._program = bpf.load_program(kind, name, code, {})

    def run(self, *arguments: int) -> int:
        """Run it with 64-bit arguments, ARGUMENTS at most; returns its 32-bit result.

        Raises bpf.LoadError.
        """
        context = struct.pack(f"<{len(arguments)}Q", *arguments)
        options = _RunOptions(
            sz=ctypes.sizeof(_RunOptions),
            ctx_in=ctypes.cast(ctypes.c_char_p(context), ctypes.c_void_p),
            ctx_size_in=len(context),
        )
        if libbpf().bpf_prog_test_run_opts(self._program, ctypes.byref(options)) < 0:
            number = ctypes.get_errno()
            raise bpf.LoadError(f"cannot run a BPF program ({os.strerror(number)})", number)
        return int(options.retval)

    def word(self, *arguments: int) -> int:
        """Run it once for each half of its 64-bit result, which it asks its last argument for."""
        return self.run(*arguments, 0) | self.run(*arguments, 1) << 32

    def close(self) -> None:
        """Free the program; may be called twice."""
        if self._program >= 0:
            os.close(self._program)
            self._program = -1

    def __enter__(self) -> Once:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
