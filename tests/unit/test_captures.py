# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of real kernels: what was raised there is raised again, with the same numbers, and
what was silent is silent.

tests/lab/scenarios.py --save makes tests/data/KERNEL-ARCH-GROUP.dmabuf, in which scenes were
played one after the other, and beside it a .json with a line an act: when it was, what is expected,
and what the kernel said to it.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DATA = TESTS / "data"
sys.path.insert(0, str(TESTS / "lab" / "raised"))

from judge import Act, Played, verdict  # noqa: E402 (the path is set above)

played = cache(Played)


def acts() -> list[tuple[Path, Act]]:
    return [
        (path.with_suffix(".dmabuf"), act)
        for path in sorted(DATA.glob("*-[abcd].json"))
        for act in json.loads(path.read_text())
    ]


def name(case: object) -> str:
    if isinstance(case, Path):
        return case.stem
    assert isinstance(case, dict)
    return f"{case['id']}-{case['scene']}-{'raised' if case['bad'] else 'near'}"


@pytest.mark.parametrize(("capture", "act"), acts(), ids=name)
def test_it_is_judged_as_it_was(capture: Path, act: Act) -> None:
    assert verdict(act, played(capture).findings(act)) == ""


def test_raised_acts_have_evidence() -> None:
    for _, act in acts():
        assert act["severity"] in ("info", "warning", "error")
        assert act["kernel"] or not act["bad"] or act["severity"] != "error", act["id"]


def test_nothing_was_lost() -> None:
    for capture in sorted(DATA.glob("*-[abcd].dmabuf")):
        assert not played(capture).losses


def test_the_data_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 1 << 20
