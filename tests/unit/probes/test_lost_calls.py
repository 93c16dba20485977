# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel skipped, as lost calls."""

from __future__ import annotations

from dmabuf_tool.probes.session import lost_calls

TWINS = {"map_exit": ("map_exit~", 9)}


def lost(first: int, second: int, taken: int, alone: int = 0) -> int:
    """Of one hook with twins and one without."""

    def told(number: int) -> int:
        assert number == 9
        return taken

    misses = {"map_exit": first, "map_exit~": second, "fault_entry": alone}
    return lost_calls(misses, TWINS, told)


def test_what_the_second_took_over_is_not_lost() -> None:
    assert lost(first=75, second=3, taken=75) == 0
    assert lost(first=0, second=12, taken=0) == 0


def test_what_both_missed_is() -> None:
    assert lost(first=75, second=3, taken=74) == 1
    assert lost(first=2, second=2, taken=0) == 2


def test_traffic_of_others_that_only_the_first_missed_is_not() -> None:
    assert lost(first=500, second=0, taken=3) == 0
    assert lost(first=500, second=1, taken=3) == 1  # at most that one


def test_a_call_being_told_does_not_look_lost() -> None:
    assert lost(first=4, second=2, taken=5) == 0


def test_without_a_twin_each_skipped_run_is_a_call() -> None:
    assert lost(first=0, second=0, taken=0, alone=2) == 2
