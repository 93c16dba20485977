# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading small BPF maps: counters, call stacks, text; through libbpf's map calls."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dmabuf_tool.kernel.libraries import libbpf
from dmabuf_tool.probes import bpf

_STACK_DEPTH: Final = 127  # PERF_MAX_STACK_DEPTH


@functools.cache
def possible_cpus() -> int:
    """The number of per-CPU values of a map: one for each possible CPU."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1


def _lookup(fd: int, key: bytes, size: int) -> bytes | None:
    value = ctypes.create_string_buffer(size)
    return None if libbpf().bpf_map_lookup_elem(fd, key, value) else value.raw


def element(fd: int, index: int, size: int) -> bytes:
    """An element of an array, `size` bytes. Raises OSError."""
    raw = _lookup(fd, struct.pack("<I", index), size)
    if raw is None:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "BPF map")
    return raw


def freeze(fd: int, value: bytes) -> None:
    """Give an array's only element its value for good: programs may take it for a constant.

    Raises bpf.LoadError.
    """
    lib, zero = libbpf(), struct.pack("<I", 0)
    if lib.bpf_map_update_elem(fd, zero, value, ctypes.c_uint64(0)) or lib.bpf_map_freeze(fd):
        number = ctypes.get_errno()
        raise bpf.LoadError(f"cannot fill a BPF map ({os.strerror(number)})", number)


def counters(fd: int, count: int, index: int = 0) -> Sequence[int]:
    """`count` 64-bit counters in one element of a per-CPU array, summed over the CPUs."""
    cpus = possible_cpus()
    raw = element(fd, index, 8 * count * cpus)
    values = struct.unpack(f"<{count * cpus}Q", raw)
    return [sum(values[i::count]) for i in range(count)]


def stack(fd: int, key: int) -> list[int]:
    """The addresses of a call stack, innermost first; [] where the map no longer has it."""
    raw = _lookup(fd, struct.pack("<I", key), 8 * _STACK_DEPTH)
    if raw is None:
        return []
    addresses = struct.unpack(f"<{_STACK_DEPTH}Q", raw)
    return list(addresses[: addresses.index(0)] if 0 in addresses else addresses)
