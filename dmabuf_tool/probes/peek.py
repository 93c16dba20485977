# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading words of kernel memory, and where a symbol is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from dmabuf_tool.probes import bpf
from dmabuf_tool.probes.once import RETURN_HALF, Instruction, Once

_READ: Final = (
    (0x79, 0x13, 0, 0),  # r3 = *(u64 *)(r1 + 0): the address
    (0x79, 0x16, 8, 0),  # r6 = *(u64 *)(r1 + 8): the half
    (0xB7, 0x00, 0, 0),  # r0 = 0
    (0x7B, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = r0
    (0xBF, 0xA1, 0, 0),  # r1 = r10
    (0x07, 0x01, 0, -8),  # r1 += -8
    (0xB7, 0x02, 0, 8),  # r2 = 8
    (0x85, 0x00, 0, 113),  # call bpf_probe_read_kernel
    (0x79, 0xA0, -8, 0),  # r0 = *(u64 *)(r10 - 8)
    *RETURN_HALF,
)


class Peek:
    """Reads kernel words; use as a context manager. Raises bpf.LoadError where BPF is refused."""

    def __init__(self) -> None:
        self._program = Once("peek", _READ)

    def word(self, address: int) -> int:
        """The 64-bit word at an address; 0 where it cannot be read."""
        return self._program.word(address)

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()


def address_of(symbol: str) -> int:
    """Where a symbol of the kernel is, 0 where there is none or where it may not be known.

    By bpf_kallsyms_lookup_name() (Linux 5.16: d6aef08a872b ("bpf: Add bpf_kallsyms_lookup_name
    helper")): of several with one name it finds the first. Raises bpf.LoadError.
    """
    with Once("address", _lookup(symbol), bpf.PROG_SYSCALL) as program:
        return program.word()


def _lookup(symbol: str) -> Sequence[Instruction]:
    name = symbol.encode() + b"\0"
    room = -len(name) % 8 + len(name) + 8  # the name, and above it the result
    padded = name.ljust(room - 8, b"\0")
    words = struct.unpack(f"<{len(padded) // 4}i", padded)
    return (
        (0x79, 0x16, 0, 0),  # r6 = *(u64 *)(r1 + 0): the half
        *((0x62, 0x0A, 4 * at - room, word) for at, word in enumerate(words)),
        (0x7A, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0
        (0xBF, 0xA1, 0, 0),  # r1 = r10
        (0x07, 0x01, 0, -room),  # r1 -= room
        (0xB7, 0x02, 0, len(name)),  # r2 = its length
        (0xB7, 0x03, 0, 0),  # r3 = 0: no flags
        (0xBF, 0xA4, 0, 0),  # r4 = r10
        (0x07, 0x04, 0, -8),  # r4 -= 8
        (0x85, 0x00, 0, 179),  # call bpf_kallsyms_lookup_name
        (0x79, 0xA0, -8, 0),  # r0 = *(u64 *)(r10 - 8)
        *RETURN_HALF,
    )
