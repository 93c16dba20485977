# SPDX-License-Identifier: GPL-2.0-or-later
"""The C library's heap: what a burst took goes back to the kernel after it."""

from __future__ import annotations

import contextlib

from dmabuf_tool.kernel.libraries import libc


def give_back() -> None:
    """Let the kernel have the free pages of the heap, malloc_trim(3).

    To be called now and then: glibc keeps what was freed, up to 64 MiB of it once large arrays
    have come and gone, and fixed thresholds (mallopt(3)) make each large array page faults.
    Does nothing where the C library has no such call.
    """
    with contextlib.suppress(AttributeError):
        libc().malloc_trim(0)
