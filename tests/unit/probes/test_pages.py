# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical addresses of struct page pointers."""

from __future__ import annotations

import os

import numpy as np

from dmabuf_tool.probes.pages import PageArray, _walk
from dmabuf_tool.schema import PAGE_NONE, PAGE_UNKNOWN

BASE = 0xFFFF_EA00_0000_0000
PAGE = os.sysconf("SC_PAGE_SIZE")


def physical(array: PageArray, *pointers: int) -> list[int]:
    return array.physical(np.array(pointers, np.uint64)).tolist()


def test_pointer_is_base_plus_page_number():
    assert physical(PageArray(BASE, 64), BASE, BASE + 64 * 0x12345) == [0, 0x12345 * PAGE]


def test_no_page():
    assert physical(PageArray(BASE, 64), 0) == [PAGE_NONE]


def test_what_is_no_page_of_the_array_is_unknown():
    # Mangled by CONFIG_DMABUF_DEBUG, below the array, far behind it.
    mangled = (BASE + 64 * 5) ^ 0xFF & ~3
    found = physical(PageArray(BASE, 64), mangled, BASE - 64, 0x1234)
    assert found == [PAGE_UNKNOWN] * 3


def test_without_a_base_nothing_is_known():
    assert physical(PageArray(), BASE, 0) == [PAGE_UNKNOWN, PAGE_NONE]


class Memory:
    """Kernel words by address."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def word(self, address: int) -> int:
        return self.words.get(address, 0)


def test_base_comes_from_the_first_section_that_is_there():
    roots, sections = 0x1000, 0x8000
    memory = Memory(
        {0x10: roots, roots + 8: sections, sections + 3 * 16: BASE | 0xF, sections + 16: 0x5}
    )
    assert _walk(memory, 0x10, 16, 0) == BASE


def test_no_sections():
    assert _walk(Memory({}), 0x10, 16, 0) == 0
