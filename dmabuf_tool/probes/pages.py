# SPDX-License-Identifier: GPL-2.0-or-later
"""From struct page pointers to physical addresses.

With SPARSEMEM_VMEMMAP, the only model of x86_64 and arm64 distribution kernels, all struct pages
stand in one virtual array and a pointer is base + pfn * sizeof(struct page) (include/asm-generic/
memory_model.h, __page_to_pfn()). The base differs by architecture, version and KASLR, so it is
taken from where the kernel itself keeps it: mm/sparse.c stores in every section's section_mem_map
the array's address for pfn 0, with flags in the low bits (sparse_encode_mem_map(),
include/linux/mmzone.h: SECTION_MARKED_PRESENT is bit 0, SECTION_HAS_MEM_MAP bit 1; unchanged from
5.15 to 7.3). mem_section is a pointer to roots of a page of sections each (SPARSEMEM_EXTREME).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import symbols
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import bpf
from dmabuf_tool.probes.peek import Peek, address_of
from dmabuf_tool.schema import PAGE_NONE, PAGE_UNKNOWN

_FLAGS: Final = 0x3F
"""Low bits of section_mem_map: struct page is 64 bytes and so aligned."""
_PRESENT: Final = 0x3
_MAX_ROOTS: Final = 8192
"""Roots of a 48-bit physical address space with sections of 128 MiB."""
_MAX_SECTIONS: Final = 64
"""Sections looked at in a root: one that is there names the base, they all name the same."""
_MAX_PFN: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class PageArray:
    """Where the kernel's struct pages stand. `base` 0: not known; it never leaves the tracer."""

    base: int = 0
    size: int = 64

    def physical(self, pointers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Physical addresses of pages (n,); PAGE_NONE for NULL, PAGE_UNKNOWN for what is no page.

        A pointer that is not a whole number of struct pages from the base is not one of ours
        (CONFIG_DMABUF_DEBUG up to 6.18 mangles page_link).
        """
        none = pointers == 0
        if not self.base:
            return np.where(none, np.uint64(PAGE_NONE), np.uint64(PAGE_UNKNOWN))
        offset = pointers - np.uint64(self.base)  # wraps below the base, and is too large then
        pfn, rest = np.divmod(offset, np.uint64(self.size))
        known = (rest == 0) & (pfn < _MAX_PFN)
        page = np.uint64(os.sysconf("SC_PAGE_SIZE"))
        found = np.where(known, pfn * page, np.uint64(PAGE_UNKNOWN))
        return np.where(none, np.uint64(PAGE_NONE), found).astype(np.uint64)


def find(page_struct_size: int) -> PageArray:
    """The array of the running kernel; one without a base where it cannot be told."""
    try:
        btf = Btf()
        try:
            size, first = btf.size_of("mem_section"), btf.members("mem_section")
        finally:
            btf.close()
        where = _address("mem_section")
        if not where or not size or "section_mem_map" not in first:
            return PageArray()
        with Peek() as peek:
            base = _walk(peek, where, size, first["section_mem_map"].offset)
    except (ToolError, OSError):
        return PageArray()
    return PageArray(base, page_struct_size) if base else PageArray()


def _address(symbol: str) -> int:
    try:
        return address_of(symbol)
    except bpf.LoadError:  # before Linux 5.16: read kallsyms, which takes its time
        where = symbols.find([symbol]).get(symbol, ())
        return where[0].address if len(where) == 1 else 0


def _walk(peek: Peek, symbol: int, size: int, offset: int) -> int:
    """The base named by the first section that is there, 0 if none is found."""
    roots = peek.word(symbol)
    if not roots:
        return 0
    for root in range(_MAX_ROOTS):
        sections = peek.word(roots + 8 * root)
        if not sections:
            continue
        for number in range(_MAX_SECTIONS):
            coded = peek.word(sections + number * size + offset)
            if coded & _PRESENT == _PRESENT:
                return coded & ~_FLAGS
    return 0
