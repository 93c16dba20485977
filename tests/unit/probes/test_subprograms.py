# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF subprograms: which texts call them, which have their bodies, and the programs made whole."""

from __future__ import annotations

import re
import struct

import pytest

from dmabuf_tool.probes import linker, plan, source, subprograms, texts
from dmabuf_tool.probes.objects import Code

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
MOVE = struct.pack("<BBhi", 0xB7, 1, 0, 5)
HELPER = struct.pack("<BBhi", 0x85, 0, 0, 14)  # bpf_get_current_pid_tgid()
NUMBER_OF = {name: number for number, name in subprograms.NUMBERS.items()}
DECLARED = re.compile(r"^SUBPROGRAM\([^,]+, (\w+),", re.MULTILINE)


def units(*names: str) -> list[source.Unit]:
    """The texts of these hooks, or of all, by fentry."""
    can = plan.Abilities(True, True, True, True, False)
    hooks = tuple(hook for hook in plan.HOOKS if not names or hook.name in names)
    ways = plan.resolve(can, lambda _: 3, lambda _: True, (), hooks)
    return source.compose(hooks, ways, source.definitions({}), source.Target("x86_64", 4096))


def call(name: str) -> bytes:
    """What bcc makes of a call of a subprogram."""
    return struct.pack("<BBhi", 0x85, 0, 0, NUMBER_OF[name])


def address(name: str) -> bytes:
    """What bcc makes of ADDRESS(), in r2: an instruction of two places."""
    return struct.pack("<BBhiBBhi", 0x18, 2, 0, NUMBER_OF[name], 0, 0, 0, 0)


def code(
    *instructions: bytes, maps: dict[int, str] | None = None, marks: dict[int, str] | None = None
):
    """A compiled function."""
    whole = b"".join(instructions)
    return Code(whole, maps or {}, marks or {}, linker.calls(whole))


def targets(whole: Code, kind: tuple[int, int] = (0x85, 1)) -> dict[int, int]:
    """Of each call between BPF functions: where it stands and where it leads."""
    found = {}
    for at in range(0, len(whole.instructions), 8):
        opcode, registers, _, distance = struct.unpack_from("<BBhi", whole.instructions, at)
        if (opcode, registers >> 4) == kind:
            found[at // 8] = at // 8 + 1 + distance
    return found


def test_each_is_declared_once_where_the_table_says() -> None:
    declared = [
        name
        for file in sorted(texts.BPF_DIRECTORY.glob("*.bpf.*"))
        for name in DECLARED.findall(file.read_text())
    ]
    assert sorted(declared) == sorted(subprograms.HELD_BY)
    for name, subject in subprograms.HELD_BY.items():
        (unit,) = [unit for unit in units() if subprograms.function_of(name) in unit.names]
        assert {p.way.hook.subject for p in unit.programs} >= {subject}
        assert name in DECLARED.findall(unit.text)


def test_texts_call_what_one_of_them_has() -> None:
    for unit in units():
        for name, number in NUMBER_OF.items():
            assert (
                f"#define SUBPROGRAM_{name}(type, name) CALLED(type, name, {number})" in unit.text
            )


def test_a_text_alone_has_everything_inline() -> None:
    (unit,) = units("map")
    assert "CALLED(type, name, 3" not in unit.text
    assert unit.names == ("map_entry", "map_exit")


def test_a_helper_is_no_subprogram() -> None:
    assert linker.calls(HELPER + call("see_buffer") + EXIT) == {1: "sub_see_buffer"}


def test_bodies_come_behind_the_program_and_calls_lead_to_them() -> None:
    bodies = {
        "sub_describe_device": code(
            MOVE, call("see_device"), EXIT, maps={0: "ids"}, marks={0: "role"}
        ),
        "sub_see_device": code(MOVE, MOVE, EXIT, maps={1: "devices"}),
        "sub_see_buffer": code(MOVE, EXIT),
    }
    program = code(
        *(MOVE, call("describe_device"), HELPER, call("see_device"), call("describe_device")),
        EXIT,
        maps={0: "events"},
        marks={0: "role"},
    )
    whole = linker.link(program, bodies)
    # 0-5 the program, 6-8 describe_device, 9-11 see_device
    assert len(whole.instructions) // 8 == 12
    assert targets(whole) == {1: 6, 3: 9, 4: 6, 7: 9}
    assert whole.instructions[16:24] == HELPER
    assert whole.maps == {0: "events", 6: "ids", 10: "devices"}
    assert whole.marks == {0: "role", 6: "role"}
    assert whole.calls == {}


def test_a_program_that_calls_nothing_stays_as_it_is() -> None:
    program = code(MOVE, HELPER, EXIT)
    assert linker.link(program, {}) is program


ADDRESSES = (0x18, 4)


def test_what_the_kernel_calls_has_its_argument_where_subprograms_have_it() -> None:
    bodies = {
        "sub_copy_chunk": code(
            MOVE, call("see_buffer"), EXIT, maps={0: "chunks"}, marks={0: "role"}
        ),
        "sub_see_buffer": code(MOVE, EXIT),
    }
    program = code(MOVE, address("copy_chunk"), call("copy_chunk"), HELPER, EXIT)
    whole = linker.link(program, bodies)
    # 0-5 the program, 6-9 copy_chunk for the kernel, 10-12 copy_chunk for us, 13-14 see_buffer
    assert targets(whole, ADDRESSES) == {1: 6}
    assert whole.instructions[8:16] == struct.pack("<BBhi", 0x18, 0x42, 0, 6 - 1 - 1)
    assert whole.instructions[48:56] == struct.pack("<BBhi", 0xBF, 0x21, 0, 0)  # r1 = r2
    assert targets(whole) == {3: 10, 8: 13, 11: 13}
    assert whole.maps == {7: "chunks", 10: "chunks"}
    assert whole.marks == {7: "role", 10: "role"}
    assert whole.functions == {
        0: "program",
        6: "sub_copy_chunk",
        10: "sub_copy_chunk",
        13: "sub_see_buffer",
    }


def test_addresses_stay_numbers_where_the_kernel_knows_none() -> None:
    program = code(address("copy_chunk"), call("see_buffer"), EXIT)
    whole = linker.link(program, {"sub_see_buffer": code(EXIT)}, addresses=False)
    assert whole.instructions[:16] == address("copy_chunk")
    assert targets(whole) == {2: 4}
    assert whole.functions == {}


def test_a_map_is_no_address() -> None:
    of_map = struct.pack("<BBhiBBhi", 0x18, 0x12, 0, NUMBER_OF["copy_chunk"], 0, 0, 0, 0)
    assert linker.calls(of_map + EXIT) == {}


def test_a_missing_body_is_no_call_into_nowhere() -> None:
    with pytest.raises(KeyError, match="sub_see_buffer"):
        linker.link(code(call("see_buffer"), EXIT), {})
