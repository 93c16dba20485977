# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of addresses, held against /proc/kallsyms, which the kernel writes from the same tables."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dmabuf_tool.kernel import symbols
from dmabuf_tool.probes import bpf, once, pages, peek
from dmabuf_tool.probes.namer import OWN_FRAMES, Namer

INTO = 4
"""Bytes behind a function's start."""


@pytest.fixture
def namer() -> Iterator[Namer]:
    made = Namer()
    yield made
    made.close()


def functions() -> dict[int, set[str]]:
    """The kernel's functions by address, aliases together, of which none ends within INTO."""
    places: dict[int, set[str]] = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, _, name, *module = line.split()
        if not module:
            places.setdefault(int(address, 16), set()).add(name)
    at = {name: address for address, names in places.items() for name in names}
    text = sorted(address for address in places if at["_stext"] <= address < at["_etext"])
    return {low: places[low] for low, high in pairwise(text) if high - low > INTO}


def test_names_are_those_of_kallsyms(namer: Namer) -> None:
    places = functions()
    told = [at for at, names in places.items() if not any(n.startswith(OWN_FRAMES) for n in names)]
    asked = random.Random(1).sample(sorted(told), 500)
    frames = namer.frames([address + INTO for address in asked])
    assert len(frames) == len(asked)
    strange = [
        (frame, places[address])
        for address, frame in zip(asked, frames, strict=True)
        if frame not in {f"{name}+{INTO:#x}" for name in places[address]}
    ]
    assert strange == []


def test_frames_of_bpf_itself_are_left_out(namer: Namer) -> None:
    places = functions()
    own = [at for at, names in places.items() if all(n.startswith(OWN_FRAMES) for n in names)]
    other = next(at for at, names in places.items() if not any("bpf" in name for name in names))
    assert own
    assert len(namer.frames([*own[:20], other])) == 1


def test_what_is_no_function_has_no_name(namer: Namer) -> None:
    assert namer.frames([0, 1, 2**64 - 1, 2**63 + 5] * 4) == ("?",) * 16
    assert namer.frames([]) == ()


def test_a_full_stack_and_one_frame(namer: Namer) -> None:
    address = next(iter(functions()))
    (one,) = namer.frames([address])
    assert namer.frames([address] * 127) == (one,) * 127


def test_where_a_symbol_is() -> None:
    for name in ("_text", "schedule", "bpf_prog_put"):  # of 6 to 13 bytes with their end
        (symbol,) = symbols.find([name])[name]
        assert peek.address_of(name) == symbol.address
    assert peek.address_of("no_such_symbol") == 0


def test_before_5_16_kallsyms_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise bpf.LoadError("cannot load BPF program address (Invalid argument)", 22)

    where = pages._address("schedule")
    monkeypatch.setattr(once.bpf, "load_program", refused)
    with pytest.raises(bpf.LoadError):
        peek.address_of("schedule")
    assert pages._address("schedule") == where != 0
    assert pages._address("no_such_symbol") == 0


def test_a_kernel_that_names_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmabuf_tool.probes.namer._ONLY_READ", 0)  # no constant: it is refused
    with pytest.raises(bpf.LoadError, match="cannot load BPF program names"):
        Namer()
