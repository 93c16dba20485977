# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks: how they are told from other instructions, and what is written in their place."""

from __future__ import annotations

import struct

import pytest

from dmabuf_tool.probes import marks
from dmabuf_tool.probes.marks import Marks
from dmabuf_tool.probes.objects import Code

LOAD, LOAD_BYTE, MOVE, ADD, STORE, EXIT = 0x79, 0x71, 0xB7, 0x07, 0x7B, 0x95


def instruction(opcode: int, offset: int = 0, number: int = 0, registers: int = 0x21) -> bytes:
    """One BPF instruction; r1 is its destination and r2 its source."""
    return struct.pack("<BBhi", opcode, registers, offset, number)


def known() -> Marks:
    """Two members and a fact."""
    found = Marks()
    found.member("dma_buf.size")
    found.member("task_struct.comm")
    found.fact("MAX_SEGMENTS")
    return found


def test_each_has_a_number_of_its_own_that_stays() -> None:
    found = known()
    assert found.member("dma_buf.size") == found.member("dma_buf.size")
    assert len(found.names()) == 3
    assert found.fact("STACKS") not in known().names()


def test_marked_instructions_are_found_and_filled_in() -> None:
    found = known()
    size, comm, most = *found.members.values(), *found.facts.values()
    number = 0x7AF10000
    code = b"".join(
        (
            instruction(LOAD, size),
            instruction(LOAD, comm + 8),  # the second half of a member
            instruction(ADD, 0, number + comm),
            instruction(MOVE, 0, number + size),
            instruction(MOVE, 0, most),
            instruction(EXIT),
        )
    )
    marked = marks.find(code, found.names())
    assert list(marked.values()) == [
        *("dma_buf.size", "task_struct.comm", "task_struct.comm", "dma_buf.size", "MAX_SEGMENTS"),
    ]
    values = {"dma_buf.size": 16, "task_struct.comm": 3000, "MAX_SEGMENTS": 128}
    assert Code(code, {}, marked).relocated({}, values) == b"".join(
        (
            instruction(LOAD, 16),
            instruction(LOAD, 3008),
            instruction(ADD, 0, 3000),
            instruction(MOVE, 0, 16),
            instruction(MOVE, 0, 128),
            instruction(EXIT),
        )
    )


def test_what_only_looks_alike_is_left_alone() -> None:
    code = b"".join(
        (
            instruction(STORE, 0x7AF0),  # fetch_add(), patches.py
            instruction(LOAD, 0x0FF8),
            instruction(MOVE, 0, 0x8008),
            instruction(ADD, 0, -8),
            instruction(MOVE, 0, 0x40086200),
        )
    )
    assert marks.find(code, known().names()) == {}


@pytest.mark.parametrize("number", [0x4000, 0x4020 + 0x4040, -0x4020])
def test_no_program_calculates_with_a_member_s_place(number: int) -> None:
    with pytest.raises(AssertionError):
        marks.find(instruction(ADD, 0, number), known().names())


@pytest.mark.parametrize("count", [2, 5, 6])
def test_arguments_are_where_the_function_has_them(count: int) -> None:
    loads = [instruction(LOAD, 0x7800 + 8 * n) for n in range(marks.ARGUMENTS + 1)]
    code = b"".join(loads)
    filled = Code(code, {}, marks.find(code, {})).relocated(
        {}, marks.arguments(count, returns=True)
    )
    for n in range(marks.ARGUMENTS):
        there = instruction(LOAD, 8 * n)
        absent = instruction(MOVE, registers=0x01)  # r1 = 0
        assert filled[8 * n : 8 * n + 8] == (there if n < count else absent)
    assert filled[-8:] == instruction(LOAD, 8 * count)


def test_a_function_without_a_value_returns_zero() -> None:
    code = instruction(LOAD, 0x7800 + 8 * marks.ARGUMENTS)
    filled = Code(code, {}, marks.find(code, {})).relocated({}, marks.arguments(2, returns=False))
    assert filled == instruction(MOVE, registers=0x01)


def test_nothing_is_loaded_with_a_mark_in_it() -> None:
    code = instruction(LOAD_BYTE, known().member("dma_buf.size"))
    with pytest.raises(KeyError):
        Code(code, {}, marks.find(code, known().names())).relocated({}, {})
    with pytest.raises(KeyError):
        marks.find(instruction(LOAD, 0x6000), known().names())
