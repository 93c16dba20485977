# SPDX-License-Identifier: GPL-2.0-or-later
"""Types of a program's functions, which the kernel asks for where one's address is loaded.

It wants to know that such a function is static (BPF_PSEUDO_FUNC in check_ld_imm(),
kernel/bpf/verifier.c) and, for that, of each function where it begins. What they take and return is
not described: static functions are verified with what they are called with. libbpf makes the types.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.libraries import libbpf

_STATIC: Final = 0  # enum btf_func_linkage, include/uapi/linux/btf.h
_SIGNED: Final = 1  # BTF_INT_SIGNED
INFO: Final = struct.Struct("<II")
"""struct bpf_func_info: a function's first instruction, and its type."""


@functools.cache
def _lib() -> ctypes.CDLL:
    lib = libbpf()
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, *arguments in (
        ("btf__new_empty", pointer),
        ("btf__add_int", number, pointer, text, ctypes.c_size_t, number),
        ("btf__add_func_proto", number, pointer, number),
        ("btf__add_func", number, pointer, text, number, number),
        ("btf__load_into_kernel", number, pointer),
        ("btf__fd", number, pointer),
        ("btf__free", None, pointer),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@contextlib.contextmanager
def described(functions: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
    """Functions by their first instruction, from zero on, as types in the kernel: their fd, and an
    INFO for each. Both are nothing where there is nothing to describe.

    Raises ToolError where the kernel takes no types.
    """
    if not functions:
        yield 0, b""
        return
    lib = _lib()
    types = lib.btf__new_empty()
    if not types:
        raise ToolError("out of memory")
    try:
        plain = lib.btf__add_func_proto(types, lib.btf__add_int(types, b"int", 4, _SIGNED))
        infos = [
            INFO.pack(start, lib.btf__add_func(types, name.encode(), _STATIC, plain))
            for start, name in sorted(functions.items())
        ]
        failed = -lib.btf__load_into_kernel(types)
        if failed:
            word = errno.errorcode.get(failed, str(failed))
            raise ToolError(f"the kernel takes no types of a program's functions ({word})")
        yield lib.btf__fd(types), b"".join(infos)
    finally:
        lib.btf__free(types)
