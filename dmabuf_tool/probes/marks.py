# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks: what is not known when a program is compiled, and written into it when it is loaded.

Where the running kernel keeps the members of its structs, what it has and has not, what the user
asked for: none of it is in a text, so that one text, compiled once, serves every kernel. Each such
thing has a number that nothing else in a program looks like. The text says it in assembly
(bpf/members.bpf.h), which the compiler passes on as it is; `find()` sees it in the instructions,
by name, and `fill()` puts the value there.

    *(u64 *)(r1 + MEMBERS ..)       a member's offset, or an argument's
    r1 += NUMBERS | MEMBERS ..      a member's offset
    r1 = NUMBERS | FACTS ..         a fact: any number of 32 bits
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_SLOT: Final = 32
"""Bytes from one member's mark to the next: within, an offset is one inside of the member."""
_MEMBERS: Final = 0x4000
"""Of the first member: offsets in the programs' own structs are smaller."""
_ARGUMENTS: Final = 0x7800
"""Of a call's first argument; the others follow."""
ARGUMENTS: Final = 5
"""As many of a call's are looked at."""
_RETURNED: Final = _ARGUMENTS + 8 * ARGUMENTS
_NUMBERS: Final = 0x7AF10000
"""What makes a mark of a number of 32 bits."""
_FACTS: Final = 0x7AF20000

_LOADS: Final = (0x61, 0x69, 0x71, 0x79)  # BPF_LDX | BPF_MEM of 4, 2, 1 and 8 bytes
_MOVE, _ADD = 0xB7, 0x07  # BPF_ALU64 | BPF_K
_ADDING: Final = (_ADD, 0x04)  # and with 32 bits

RETURNED: Final = "returned"
ROLE: Final = "role"
"""Which of two programs on one function this is (bpf/core.bpf.h)."""

_FIXED: Final = {
    **{_ARGUMENTS + 8 * n: f"argument {n}" for n in range(ARGUMENTS)},
    _RETURNED: RETURNED,
}


@dataclass(slots=True)
class Marks:
    """The marks of one text. A member is called "struct.member", anything else by its name."""

    members: dict[str, int] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)

    def member(self, name: str) -> int:
        """The offset that stands for a member's."""
        number = self.members.setdefault(name, _MEMBERS + _SLOT * len(self.members))
        assert number < _ARGUMENTS, "more members than there are marks"
        return number

    def fact(self, name: str) -> int:
        """The number that stands for a fact."""
        return self.facts.setdefault(name, _FACTS + len(self.facts))

    def names(self) -> dict[int, str]:
        """All of them, by number."""
        return {number: name for name, number in (*self.members.items(), *self.facts.items())}


def defines() -> str:
    """What bpf/members.bpf.h needs to know, as C macros."""
    return (
        f"#define MARKED_NUMBER {_NUMBERS:#x}\n"
        f"#define MARKED_ARGUMENTS {_ARGUMENTS:#x}\n"
        f"#define MARKED_RETURNED {_RETURNED:#x}\n"
    )


def find(code: bytes, names: Mapping[int, str]) -> dict[int, str]:
    """What each marked instruction waits for, by its index; `names` as Marks.names().

    Raises KeyError where an instruction looks marked and is not, and AssertionError where the
    compiler calculated with an offset that only stands for a member's.
    """
    found = {}
    for at in range(0, len(code), 8):
        opcode, _, offset, number = struct.unpack_from("<BBhi", code, at)
        if opcode in _LOADS and offset >= _MEMBERS:
            found[at // 8] = _FIXED.get(offset) or names[offset - offset % _SLOT]
        elif opcode in (_MOVE, _ADD) and number >> 16 == _NUMBERS >> 16:
            found[at // 8] = names[number & 0xFFFF]
        elif opcode == _MOVE and number >> 16 == _FACTS >> 16:
            found[at // 8] = names[number]
        elif opcode in _ADDING:
            assert not _MEMBERS <= abs(number) < 2 * _ARGUMENTS, f"{number:#x} at {at // 8}"
    return found


def fill(code: bytearray, marked: Mapping[int, str], values: Mapping[str, int]) -> None:
    """Write the values in. An argument that a function has not is zero.

    Raises KeyError where a value is missing.
    """
    for index, name in marked.items():
        opcode, registers, offset, _ = struct.unpack_from("<BBhi", code, 8 * index)
        value = values[name]
        if opcode not in _LOADS:
            struct.pack_into("<i", code, 8 * index + 4, value)
        elif value < 0:
            struct.pack_into("<BBhi", code, 8 * index, _MOVE, registers & 0x0F, 0, 0)
        else:
            inside = 0 if offset in _FIXED else offset % _SLOT
            struct.pack_into("<h", code, 8 * index + 2, value + inside)


def arguments(count: int, *, returns: bool) -> dict[str, int]:
    """Where a traced function's arguments are in the context of a program, and what it returned."""
    places = {f"argument {n}": 8 * n if n < count else -1 for n in range(ARGUMENTS)}
    return {**places, RETURNED: 8 * count if returns else -1}


def spelled(name: str) -> str:
    """A name as part of a C macro's."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def macros(facts: Iterable[str], marks: Marks) -> str:
    """Facts as C macros FACT_<name>, for FACT() of bpf/members.bpf.h."""
    return "".join(f"#define FACT_{spelled(name)} {marks.fact(name):#x}\n" for name in facts)
