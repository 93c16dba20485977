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


def test_a_text_is_the_same_with_twins_and_without() -> None:
    """Of what is called often, and has twins on a preemptible kernel."""
    assert units(True)[0].text == units(False)[0].text
    assert all(p.way.twins for p in units(True)[0].programs if p.way.method == "fentry")


def test_what_is_rare_has_no_twins_where_they_would_be_needed() -> None:
    methods = {p.name: p.way.method for unit in units(True) for p in unit.programs}
    assert methods["attach_exit"] == methods["pin_exit"] == "kprobe_multi"
    assert methods["map_exit"] == methods["iommu_map_exit"] == "fentry"
    assert {p.way.method for unit in units(False) for p in unit.programs} == {
        *("fentry", "raw_tracepoint"),
    }


def test_programs_ask_whether_they_are_the_second() -> None:
    (unit,) = units(False, "pin")
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
