# SPDX-License-Identifier: GPL-2.0-or-later
"""From C to BPF instructions, with bcc; the only file that imports it.

bcc is used as a compiler only: its stub of kernel headers is bpf/include, the maps it makes are
thrown away and their places in the code are remembered by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import parts
from dmabuf_tool.kernel.libraries import libc
from dmabuf_tool.probes import linker, marks, patches
from dmabuf_tool.probes.bpf import MapSpec
from dmabuf_tool.probes.objects import Code, Compiled
from dmabuf_tool.probes.source import Unit
from dmabuf_tool.probes.texts import BPF_DIRECTORY

_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000  # include/uapi/linux/mount.h
# bcc has clang optimise, then does it all again itself, and asks for debug information that is
# thrown away: without these, half the time for the same code.
_ONCE: Final = ("-Xclang", "-disable-llvm-passes", "-g0")


def hide_kallsyms() -> None:
    """Give this process a /proc/kallsyms of one line, in a mount namespace of its own.

    bcc reads all of it for every text, to see whether the kernel has bpf_probe_read_kernel()
    (DoMiscWorkAround() in its b_frontend_action.cc): a third of what compiling takes, and seconds
    on an emulated machine. Linux 5.5 has it, and we need 5.12. Where this may not be done, bcc
    reads the file.
    """
    private, bind = ctypes.c_ulong(_MS_REC | _MS_PRIVATE), ctypes.c_ulong(_MS_BIND)
    if not libc().unshare(_CLONE_NEWNS) and not libc().mount(None, b"/", None, private, None):
        libc().mount(bytes(BPF_DIRECTORY / "kallsyms"), b"/proc/kallsyms", None, bind, None)


def compile_one(unit: Unit) -> Compiled:
    """Compile one text here and now.

    Raises ToolError.
    """
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_DIRECTORY / "include")
    lib = bcc()
    given = [flag.encode() for flag in (*unit.flags, "-Wno-all", *_ONCE)]
    flags = (ctypes.c_char_p * len(given))(*given)
    with open(os.memfd_create("log"), "rb") as log:
        with _stderr_to(log.fileno()):
            module = lib.bpf_module_create_c_from_string(
                unit.text.encode(), 0, flags, len(flags), True, None
            )
        if not module:
            log.seek(0)
            words = log.read().decode("utf-8", "replace")
            raise ToolError(f"bcc cannot compile the probes: {_first_error(words) or words[:200]}")
    specs = _map_specs(lib, module)
    programs = {
        name: _code(_instructions(lib, module, name), specs, unit.marks) for name in unit.names
    }
    return Compiled(programs, {spec.name: spec for spec in specs.values()})


def _instructions(lib: Any, module: int, name: str) -> bytes:
    """The instructions of a C function."""
    start = lib.bpf_function_start(module, name.encode())
    assert start, f"bcc compiled no {name}"
    return patches.fetch_add(ctypes.string_at(start, lib.bpf_function_size(module, name.encode())))


def bcc() -> Any:
    """Import bcc's library as ctypes has it, which takes its time. Raises ToolError."""
    try:
        return parts.module("bcc", "libbcc").lib
    except (ImportError, OSError) as error:
        raise ToolError(
            "bcc's Python module is missing: install python3-bpfcc (Debian, Ubuntu) or"
            " python3-bcc (Fedora, openSUSE); 'bcc' on PyPI is an unrelated package"
        ) from error


@contextlib.contextmanager
def _stderr_to(fd: int) -> Any:
    """bcc writes its messages to file descriptor 2."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _first_error(words: str) -> str:
    return next((line for line in words.splitlines() if "error" in line.lower()), "")


def _map_specs(lib: Any, module: Any) -> dict[int, MapSpec]:
    """The maps bcc made, by fd."""
    specs = {}
    for index in range(lib.bpf_num_tables(ctypes.c_void_p(module))):

        def ask(function: Any, index: int = index, kind: Any = ctypes.c_size_t) -> Any:
            function.restype = kind
            return function(ctypes.c_void_p(module), ctypes.c_size_t(index))

        specs[ask(lib.bpf_table_fd_id, kind=ctypes.c_int)] = MapSpec(
            name=ask(lib.bpf_table_name, kind=ctypes.c_char_p).decode(),
            kind=ask(lib.bpf_table_type_id, kind=ctypes.c_int),
            key_size=ask(lib.bpf_table_key_size_id),
            value_size=ask(lib.bpf_table_leaf_size_id),
            max_entries=ask(lib.bpf_table_max_entries_id),
            flags=ask(lib.bpf_table_flags_id, kind=ctypes.c_int),
        )
    return specs


def _code(instructions: bytes, specs: dict[int, MapSpec], names: dict[int, str]) -> Code:
    """Remember which instructions load which map, and which wait for what."""
    maps = {}
    for index in range(0, len(instructions) // 8):
        opcode, registers, _, value = struct.unpack_from("<BBhi", instructions, index * 8)
        if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            maps[index] = specs[value].name
    return Code(instructions, maps, marks.find(instructions, names), linker.calls(instructions))
