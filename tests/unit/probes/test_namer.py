# SPDX-License-Identifier: GPL-2.0-or-later
"""A module that is loaded again is another one to the child that names stacks."""

from dmabuf_tool.probes.namer import _loaded

LINE = "vivid 245760 {users} - Live {address}\nloop 32768 0 - Live 0xffffffffc0900000\n"


def test_a_reloaded_module_is_seen() -> None:
    before = _loaded(LINE.format(users=0, address="0xffffffffc0a00000"))
    assert before == _loaded(LINE.format(users=3, address="0xffffffffc0a00000"))
    assert before != _loaded(LINE.format(users=0, address="0xffffffffc0b00000"))
    assert _loaded("broken line\n") == frozenset()
