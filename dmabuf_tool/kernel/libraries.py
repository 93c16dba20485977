# SPDX-License-Identifier: GPL-2.0-or-later
"""The C libraries that Python does not wrap, loaded once."""

from __future__ import annotations

import ctypes
import functools

from dmabuf_tool.errors import ToolError


@functools.cache
def libc() -> ctypes.CDLL:
    """For system calls and library functions that Python has no words for."""
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def libbpf() -> ctypes.CDLL:
    """The library that comes with bcc. Raises ToolError where it is missing."""
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise ToolError(
            "libbpf.so.1 is missing; install libbpf1 (it comes with python3-bpfcc)"
        ) from error
