# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that are attached twice: what is in their texts, and the role in their code."""

from __future__ import annotations

import struct

from dmabuf_tool.probes import patches, plan, source
from dmabuf_tool.probes.objects import Code

LOAD_ROLE = struct.pack("<BBhi", 0xB7, 3, 0, 0x7AF2)
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
STORE = struct.pack("<BBhi", 0x7B, 0x21, 0x7AF0, 0)


def texts(preemptible: bool, *names: str) -> str:
    """The texts of these hooks, all by fentry."""
    can = plan.Abilities(True, True, True, True, preemptible)
    hooks = tuple(hook for hook in plan.HOOKS if hook.name in names)
    ways = plan.resolve(can, lambda _: 3, lambda _: True, (), hooks)
    assert {way.method for way in ways} == {"fentry"}
    assert all(way.twins == preemptible for way in ways)
    return "".join(unit.text for unit in source.compose(ways, "", source.Options()))


def test_only_a_preemptible_kernel_has_twins() -> None:
    assert "return is_told(&c) ? 0 : on_pin_exit(&c);" in texts(True, "pin")
    assert "return on_pin_exit(&c);" in texts(False, "pin")


def test_handlers_with_frames_find_out_by_themselves() -> None:
    assert "return on_map_exit(&c);" in texts(True, "map")


def test_a_function_without_a_value_is_asked_for_none() -> None:
    text = texts(True, "map", "unmap")
    exits = text[text.index("int map_exit") :]
    assert exits.count("c.ret = ctx[3];") == 1


def test_numbers_are_unique_over_all_units() -> None:
    can = plan.Abilities(True, True, True, True, True)
    ways = plan.resolve(can, lambda _: 3, lambda _: True, ())
    units = source.compose(ways, "", source.Options())
    numbers = [program.number for unit in units for program in unit.programs]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < source.PROGRAMS


def test_the_role_is_written_where_it_is_loaded() -> None:
    instructions = LOAD_ROLE + STORE + LOAD_ROLE + EXIT
    assert patches.roles(instructions) == [0, 2]
    code = Code(instructions, {}, patches.roles(instructions))
    for role in (0, 1, 2):
        out = code.relocated({}, role)
        assert struct.unpack_from("<i", out, 4) == struct.unpack_from("<i", out, 20) == (role,)
        assert out[8:16] == STORE
        assert out[24:] == EXIT
