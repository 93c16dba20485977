# SPDX-License-Identifier: GPL-2.0-or-later
"""The child that names stacks reads its table again for modules it does not know, and only then."""

import select

import pytest

from dmabuf_tool.kernel import symbols
from dmabuf_tool.kernel.symbols import Module
from dmabuf_tool.probes.namer import Namer, _fresh

VIVID = Module("vivid", 0x3C000, 0, "Live", 0xFFFF_FFFF_C0A0_0000)
LOOP = Module("loop", 0x8000, 0, "Live", 0xFFFF_FFFF_C090_0000)
AGAIN = Module("vivid", 0x3C000, 3, "Live", 0xFFFF_FFFF_C0B0_0000)
CORE = 0xFFFF_FFFF_8100_0000


def test_a_module_that_came_or_was_loaded_again_is_fresh() -> None:
    known = {"loop": LOOP, "vivid": VIVID}
    came = _fresh({"loop": LOOP}, known)
    assert came(VIVID.address) and came(VIVID.address + VIVID.size - 1)
    assert not came(VIVID.address + VIVID.size)
    again = _fresh(known, {"loop": LOOP, "vivid": AGAIN})
    assert again(AGAIN.address + 0x1234)
    assert not again(LOOP.address)


def test_what_is_known_is_not_read_again() -> None:
    known = {"loop": LOOP, "vivid": VIVID}
    fresh = _fresh(known, {"vivid": VIVID})
    assert not any(map(fresh, (CORE, VIVID.address, LOOP.address)))
    assert not _fresh(known, {**known, "xe": AGAIN})(CORE)


def test_asking_after_its_end_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace goes on without names, and says why."""

    def broken() -> None:
        raise ValueError("kallsyms is not what it was")

    monkeypatch.setattr(symbols.Table, "read", broken)
    namer = Namer()
    try:
        select.select([namer], [], [], 10)
        assert namer.answers() == {}
        assert namer.problem == "ValueError: kallsyms is not what it was"
        if namer.fileno() >= 0:  # its end may have come with its last words
            select.select([namer], [], [], 10)
        assert namer.answers() == {}
        for key in range(3):
            namer.ask(key, [1, 2, 3])
        assert namer.fileno() == -1
    finally:
        namer.close()
