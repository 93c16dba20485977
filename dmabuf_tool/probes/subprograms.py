# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF subprograms: functions that are in one text, and called by the programs of all.

bcc inlines every function it sees and knows no calls from one program to another. So the texts
call these as if they were helpers, by numbers that no helper has (SUBPROGRAM in bpf/core.bpf.h);
the loader puts the bodies behind the program that calls them (linker.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

HELD_BY: Final = {
    "fill_event": "attach",
    "see_device": "attach",
    "describe_device": "attach",
    "describe_domain": "attach",
    "see_buffer": "attach",
    "tell_gathered": "attach",
    "copy_chunk": "attach",
    "send_iommu": "iommu",
    "tell_attachment": "buffer",
    "tell_buffer": "buffer",
}
"""The subject (source.SUBJECTS) in whose text each one's body is compiled."""

_FIRST_NUMBER: Final = 0x7B00
"""Far beyond the kernel's helpers, which end below 300 (include/uapi/linux/bpf.h)."""
NUMBERS: Final = dict(enumerate(HELD_BY, _FIRST_NUMBER))

_BODY = """
u64 {function}(struct {name} *a)
{{
	return (u64){name}_body(a);
}}
"""


def function_of(name: str) -> str:
    """The C function that bcc compiles as the body."""
    return f"sub_{name}"


def defines(subjects: Collection[str]) -> str:
    """Which of them are calls, as C macros: those whose text is there, when these subjects are."""
    lines = []
    for number, name in NUMBERS.items():
        called = HELD_BY[name] in subjects
        way = f"CALLED(type, name, {number})" if called else "INLINED(type, name)"
        lines.append(f"#define SUBPROGRAM_{name}(type, name) {way}\n")
        lines.append(f"#define NUMBER_{name} {number if called else 0}\n")
    return "".join(lines)


def bodies(subjects: Collection[str]) -> dict[str, str]:
    """What the text of these subjects ends with: C by function."""
    return {
        function_of(name): _BODY.format(function=function_of(name), name=name)
        for name, subject in HELD_BY.items()
        if subject in subjects
    }
