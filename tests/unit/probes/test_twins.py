# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that are attached twice: what is in their texts, and their numbers."""

from __future__ import annotations

from dmabuf_tool.probes import plan, source

TARGET = source.Target("x86_64", 4096)


def units(preemptible: bool, *names: str) -> list[source.Unit]:
    """The texts of these hooks, or of all, by fentry."""
    can = plan.Abilities(True, True, True, True, preemptible)
    hooks = tuple(hook for hook in plan.HOOKS if not names or hook.name in names)
    ways = plan.resolve(can, lambda _: 3, lambda _: True, (), hooks)
    assert all(way.twins == preemptible for way in ways if way.method == "fentry")
    return source.compose(hooks, ways, source.definitions({}), TARGET)


def test_texts_are_the_same_with_twins_and_without() -> None:
    assert [unit.text for unit in units(True)] == [unit.text for unit in units(False)]


def test_programs_ask_whether_they_are_the_second() -> None:
    (unit,) = units(True, "pin")
    assert "return is_told(&c) ? 0 : on_pin_exit(&c);" in unit.text


def test_tracepoints_have_no_second_program() -> None:
    """And not two arguments, all of them: the kernel refuses a program that reads one too many."""
    (unit,) = units(True, "bounce")
    assert "return on_bounce_entry(&c);" in unit.text


def test_handlers_with_frames_find_out_by_themselves() -> None:
    (unit,) = units(True, "map")
    assert "return on_map_exit(&c);" in unit.text


def test_numbers_are_unique_over_all_units() -> None:
    numbers = [program.number for unit in units(True) for program in unit.programs]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < source.PROGRAMS
