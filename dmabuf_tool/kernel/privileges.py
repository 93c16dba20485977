# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tracing process may do: all of root's rights to load, few of them afterwards.

A capture's names and the kernel's log are hostile input; what parses them for hours needs no
right to write where it likes. A command that is traced, and a loader for a module that comes
later, are executed, and root gets its rights back by that (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.libraries import libc

_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, include/uapi/linux/capability.h
_KEPT: Final = {
    "CAP_DAC_READ_SEARCH": 2,  # /proc of other users' processes
    "CAP_KILL": 5,  # pass a signal on to the command
    "CAP_SYS_PTRACE": 19,  # their descriptors and maps
    "CAP_BPF": 39,  # read the maps of the loaded programs
}


def require_root() -> None:
    """Loading probes needs CAP_BPF and CAP_PERFMON; say so before anything is tried.

    Raises ToolError.
    """
    if os.geteuid() != 0:
        raise ToolError("tracing needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN); use sudo")


def drop() -> None:
    """Give up what a trace under way does not need; threads started later have no more.

    Raises ToolError, where the kernel does not let go of rights.
    """
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    # Two words of effective, permitted, inheritable each: capabilities 0 to 31, then 32 to 63.
    data = (ctypes.c_uint32 * 6)()
    if libc().capget(header, data):
        raise ToolError(f"capget: {os.strerror(ctypes.get_errno())}")
    for word in (0, 1):
        kept = sum(1 << (bit - 32 * word) for bit in _KEPT.values() if bit // 32 == word)
        effective, permitted = 3 * word, 3 * word + 1
        data[permitted] &= kept
        data[effective] &= kept
    if libc().capset(header, data):
        raise ToolError(f"capset: {os.strerror(ctypes.get_errno())}")
