# SPDX-License-Identifier: GPL-2.0-or-later
"""The child that names stacks reads its table again for modules it does not know, and only then."""

from dmabuf_tool.kernel.symbols import Module
from dmabuf_tool.probes.namer import _fresh

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
