# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that has the kernel call one of its functions, and what the kernel wants to know."""

from __future__ import annotations

import os
import struct

import pytest

from dmabuf_tool.probes import bpf, linker, subprograms
from dmabuf_tool.probes.objects import Code

COPY_CHUNK = next(n for n, name in subprograms.NUMBERS.items() if name == "copy_chunk")


def instructions(*each):
    """BPF instructions as (opcode, destination | source << 4, offset, number)."""
    return b"".join(struct.pack("<BBhi", *one) for one in each)


# r1 = 3; r2 = the function; r3 = r10 - 8 (zero); r4 = 0; bpf_loop(r1, r2, r3, r4); r0 = 0
PROGRAM = instructions(
    *((0x7A, 10, -8, 0), (0xB7, 1, 0, 3), (0x18, 2, 0, COPY_CHUNK), (0, 0, 0, 0)),
    *((0xBF, 3 | 10 << 4, 0, 0), (0x07, 3, 0, -8), (0xB7, 4, 0, 0), (0x85, 0, 0, 181)),
    *((0xB7, 0, 0, 0), (0x95, 0, 0, 0)),
)
# *(u64 *)r1 += 1, which the verifier lets only the argument's place; r0 = 0
BODY = instructions(
    *((0x79, 2 | 1 << 4, 0, 0), (0x07, 2, 0, 1), (0x7B, 1 | 2 << 4, 0, 0)),
    *((0xB7, 0, 0, 0), (0x95, 0, 0, 0)),
)


@pytest.fixture
def linked():
    """Loaded as it is linked."""
    program = Code(PROGRAM, {}, {}, linker.calls(PROGRAM))
    return linker.link(program, {"sub_copy_chunk": Code(BODY, {})})


def test_the_kernel_takes_the_address_of_a_function_it_knows(linked):
    os.close(
        bpf.load_program(bpf.PROG_RAW_TRACEPOINT, "loop", linked.instructions, linked.functions)
    )


def test_and_of_no_other(linked):
    with pytest.raises(bpf.LoadError, match="missing btf func_info"):
        bpf.load_program(bpf.PROG_RAW_TRACEPOINT, "loop", linked.instructions, {})
