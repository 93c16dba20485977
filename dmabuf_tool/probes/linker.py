# SPDX-License-Identifier: GPL-2.0-or-later
"""The bodies of subprograms behind the programs that call them.

The calls become calls between BPF functions (Linux 4.16: cc8b0b92a169 ("bpf: introduce function
calls (function boundaries)")).
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


def calls(instructions: bytes) -> dict[int, str]:
    """The instructions that call subprograms, by index, with the function that each calls."""
    found = {}
    for at in range(0, len(instructions), 8):
        opcode, registers, _, number = struct.unpack_from("<BBhi", instructions, at)
        if opcode == _CALL and not registers and number in NUMBERS:
            found[at // 8] = function_of(NUMBERS[number])
    return found


def link(program: Code, functions: Mapping[str, Code]) -> Code:
    """A program with the bodies behind it that it calls, and that these call.

    Raises KeyError where one is missing.
    """
    if not program.calls:
        return program
    starts: dict[str, int] = {}
    parts = [(0, program)]
    end = len(program.instructions) // 8
    for _, part in parts:  # grows meanwhile
        for function in part.calls.values():
            if function not in starts:
                starts[function] = end
                parts.append((end, functions[function]))
                end += len(functions[function].instructions) // 8
    out = bytearray(b"".join(part.instructions for _, part in parts))
    for base, part in parts:
        for index, function in part.calls.items():
            distance = starts[function] - (base + index) - 1
            struct.pack_into(
                "<BBhi", out, (base + index) * 8, _CALL, _PSEUDO_CALL << 4, 0, distance
            )
    return replace(
        program,
        instructions=bytes(out),
        maps={base + index: name for base, part in parts for index, name in part.maps.items()},
        marks={base + index: name for base, part in parts for index, name in part.marks.items()},
        calls={},
    )
