# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for the addresses of call stacks, as the kernel itself gives them.

A BPF program has bpf_snprintf() write `%pS` of its arguments (Linux 5.13: 7b15523a989b ("bpf: Add
a bpf_snprintf helper")), which looks them up where /proc/kallsyms would be written from: with the
modules that are loaded now, in microseconds, where reading kallsyms takes a second of an emulated
machine and 10 MB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from dmabuf_tool.probes import bpf, maps
from dmabuf_tool.probes.once import ARGUMENTS, Instruction, Once

_FORMAT: Final = b"%pS\n" * ARGUMENTS + b"\0"
_TEXT_SIZE: Final = 8192
"""Room for names of 512 characters (KSYM_NAME_LEN from 6.1 on) and what stands behind them."""

_ARRAY: Final = 2  # BPF_MAP_TYPE_ARRAY
_ONLY_READ: Final = 1 << 7  # BPF_F_RDONLY_PROG
OWN_FRAMES: Final = ("bpf_prog_", "bpf_trampoline_", "bpf_get_stackid", "__bpf_prog_")
"""How functions begin that are between the traced call and the program: no part of a stack."""

# name+0x1f/0x50 [module], __sprint_symbol() in kernel/kallsyms.c; a bare number if there is none.
_NAMED: Final = re.compile(
    r"(?P<name>\S+)\+(?P<offset>0x[0-9a-f]+)/0x[0-9a-f]+(?P<module> \[\S+\])?"
)


class Namer:
    """Names addresses with what the kernel knows at that moment; `close()` frees its maps.

    Raises bpf.LoadError where the kernel refuses the program.
    """

    def __init__(self) -> None:
        self._text = bpf.create_map(bpf.MapSpec("names", _ARRAY, 4, _TEXT_SIZE, 1))
        form = bpf.create_map(bpf.MapSpec("format", _ARRAY, 4, len(_FORMAT), 1, _ONLY_READ))
        try:
            maps.freeze(form, _FORMAT)
            self._program = Once("names", _code(self._text, form))
        except bpf.LoadError:
            os.close(self._text)
            raise
        finally:
            os.close(form)  # the program holds it

    def frames(self, addresses: Sequence[int]) -> tuple[str, ...]:
        """A stack by name, "name+0x1f [module]" a frame and "?" for none; BPF's own left out."""
        named: list[str] = []
        for first in range(0, len(addresses), ARGUMENTS):
            named += self._names(addresses[first : first + ARGUMENTS])
        return tuple(frame for frame in named if not frame.startswith(OWN_FRAMES))

    def _names(self, addresses: Sequence[int]) -> Iterator[str]:
        self._program.run(*addresses, *[0] * (ARGUMENTS - len(addresses)))
        text = maps.element(self._text, 0, _TEXT_SIZE).partition(b"\0")[0]
        lines = text.decode("ascii", "replace").split("\n")
        for line in lines[: len(addresses)]:
            found = _NAMED.fullmatch(line)
            yield f"{found['name']}+{found['offset']}{found['module'] or ''}" if found else "?"

    def close(self) -> None:
        """Free the program and its map."""
        self._program.close()
        os.close(self._text)


def _code(text: int, form: int) -> Sequence[Instruction]:
    """bpf_snprintf(text, sizeof(text), form, arguments, sizeof(arguments))."""
    size = 8 * ARGUMENTS
    arguments = (
        instruction
        for at in range(0, size, 8)
        for instruction in (
            (0x79, 0x12, at, 0),  # r2 = *(u64 *)(r1 + at)
            (0x7B, 0x2A, at - size, 0),  # *(u64 *)(r10 - size + at) = r2
        )
    )
    return (
        *arguments,
        (0x18, 0x21, 0, text),  # r1 = the map's value
        (0x00, 0x00, 0, 0),
        (0xB7, 0x02, 0, _TEXT_SIZE),  # r2 = its size
        (0x18, 0x23, 0, form),  # r3 = the map's value
        (0x00, 0x00, 0, 0),
        (0xBF, 0xA4, 0, 0),  # r4 = r10
        (0x07, 0x04, 0, -size),  # r4 -= size
        (0xB7, 0x05, 0, size),  # r5 = size
        (0x85, 0x00, 0, 165),  # call bpf_snprintf
        (0x95, 0x00, 0, 0),  # exit
    )
