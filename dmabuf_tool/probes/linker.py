# SPDX-License-Identifier: GPL-2.0-or-later
"""The bodies of subprograms behind the programs that call them.

The calls become calls between BPF functions (Linux 4.16: cc8b0b92a169 ("bpf: introduce function
calls (function boundaries)")), and addresses, for bpf_loop(), those of BPF functions (Linux 5.13:
69c087ba6225 ("bpf: Add bpf_for_each_map_elem() helper")).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from dmabuf_tool.probes.objects import Code
from dmabuf_tool.probes.subprograms import NUMBERS, function_of

_CALL: Final = 0x85
_PSEUDO_CALL: Final = 1
"""The source register of a call whose immediate is a distance, in instructions, from the next."""
_LD_IMM64: Final = 0x18
_PSEUDO_FUNC: Final = 4
"""The same of an instruction of two places that loads an address."""
_SECOND_ARGUMENT: Final = struct.pack("<BBhi", 0xBF, 2 << 4 | 1, 0, 0)
"""r1 = r2. bpf_loop() calls with the turn's number, then the argument, which subprograms have
first."""


def calls(instructions: bytes) -> dict[int, str]:
    """The instructions that call subprograms, or load their addresses, by index, with the function
    of each."""
    found = {}
    for at in range(0, len(instructions), 8):
        opcode, registers, _, number = struct.unpack_from("<BBhi", instructions, at)
        source = registers >> 4 if opcode == _LD_IMM64 else registers
        if opcode in (_CALL, _LD_IMM64) and not source and number in NUMBERS:
            found[at // 8] = function_of(NUMBERS[number])
    return found


def link(program: Code, functions: Mapping[str, Code], *, addresses: bool = True) -> Code:
    """A program with the bodies behind it that it calls, and that these call. Without `addresses`
    those are left as they are, for a kernel that knows none: nothing may come to use them.

    Raises KeyError where one is missing.
    """
    if not program.calls:
        return program
    starts: dict[tuple[str, bool], int] = {}
    """Of functions: those that are called, and those whose address is loaded."""
    uses: list[tuple[int, int, bool]] = []
    """Where one is used, and where it begins; whether it is the address."""
    parts = [(0, program)]
    names = {0: "program"}
    end = len(program.instructions) // 8
    for base, part in parts:  # grows meanwhile
        for index, function in part.calls.items():
            is_address = part.instructions[8 * index] == _LD_IMM64
            if is_address and not addresses:
                continue
            use = function, is_address
            if use not in starts:
                body = functions[function]
                parts.append((end, _after(_SECOND_ARGUMENT, body) if is_address else body))
                starts[use], names[end] = end, function
                end += len(parts[-1][1].instructions) // 8
            uses.append((base + index, starts[use], is_address))
    out = bytearray(b"".join(part.instructions for _, part in parts))
    for at, start, is_address in uses:
        opcode, pseudo = (_LD_IMM64, _PSEUDO_FUNC) if is_address else (_CALL, _PSEUDO_CALL)
        register = out[8 * at + 1] & 0x0F
        struct.pack_into("<BBhi", out, 8 * at, opcode, pseudo << 4 | register, 0, start - at - 1)
    return replace(
        program,
        instructions=bytes(out),
        maps={base + index: name for base, part in parts for index, name in part.maps.items()},
        marks={base + index: name for base, part in parts for index, name in part.marks.items()},
        calls={},
        functions=names if any(is_address for _, is_address in starts) else {},
    )


def _after(first: bytes, code: Code) -> Code:
    """A function with one instruction more at its beginning."""
    return Code(
        first + code.instructions,
        {index + 1: name for index, name in code.maps.items()},
        {index + 1: name for index, name in code.marks.items()},
        {index + 1: function for index, function in code.calls.items()},
    )
