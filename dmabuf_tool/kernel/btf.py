# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF Type Format: where the running kernel keeps the members of its structs.

Relies on libbpf (libbpf.so.1, which bcc depends on) to parse /sys/kernel/btf: a C library reads
the 150,000 types of a distribution kernel in milliseconds. Only struct members, enum values and
function ids are asked for. Format: Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.libraries import libbpf

KIND_INT, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM = 1, 2, 3, 4, 5, 6
KIND_TYPEDEF, KIND_FUNC, KIND_ENUM64 = 8, 12, 19
_QUALIFIERS: Final = (KIND_TYPEDEF, 9, 10, 11, 18)  # volatile, const, restrict, type tag

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct. `offset` and `size` in bytes; a bit field also has `mask`."""

    offset: int
    size: int
    mask: int = 0
    pointer: bool = False


@functools.cache
def _lib() -> ctypes.CDLL:
    """libbpf, with the types of the few functions used. Raises ToolError where it is missing."""
    lib = libbpf()
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, *arguments in (
        ("btf__parse", pointer, text, pointer),
        ("btf__parse_split", pointer, text, pointer),
        ("btf__type_by_id", pointer, pointer, ctypes.c_uint),
        ("btf__name_by_offset", text, pointer, ctypes.c_uint),
        ("btf__find_by_name_kind", ctypes.c_int, pointer, text, ctypes.c_uint),
        ("btf__resolve_size", ctypes.c_longlong, pointer, ctypes.c_uint),
        ("btf__free", None, pointer),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Btf:
    """The types of the kernel, or of a module on top of it.

    Raises ToolError where the kernel has no BTF (CONFIG_DEBUG_INFO_BTF=n).
    """

    def __init__(self, path: Path = VMLINUX, base: Btf | None = None) -> None:
        if base is None:
            self._btf = _lib().btf__parse(str(path).encode(), None)
        else:
            self._btf = _lib().btf__parse_split(str(path).encode(), base._btf)
        if not self._btf:
            raise ToolError(
                f"{path}: the kernel's BTF cannot be read;"
                " a kernel with CONFIG_DEBUG_INFO_BTF=y is needed"
            )
        self._base = base  # the base must outlive what is split from it
        self._found: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        """Give the parsed types back (some 10 MB for a kernel)."""
        if self._btf:
            _lib().btf__free(self._btf)
            self._btf = None

    def function(self, name: str) -> int:
        """The BTF id of a function, 0 where there is none."""
        found = self._find(name, KIND_FUNC)
        return max(found, 0)

    def arity(self, name: str) -> int | None:
        """The number of a function's arguments, None where BTF has no such function."""
        found = self._find(name, KIND_FUNC)
        if found <= 0:
            return None
        proto = struct.unpack("<I", ctypes.string_at(self._type(found)[0] + 8, 4))[0]
        return self._type(proto)[2] & 0xFFFF

    def has_tracepoint(self, name: str) -> bool:
        """Whether the kernel has this raw tracepoint: each one leaves a typedef in BTF."""
        return self._find(f"btf_trace_{name}", KIND_TYPEDEF) > 0

    def size_of(self, name: str) -> int:
        """Size of a struct in bytes, 0 where it is not known."""
        found = self._find(name, KIND_STRUCT)
        return int(_lib().btf__resolve_size(self._btf, found)) if found > 0 else 0

    def members(self, name: str) -> dict[str, Member]:
        """The members of a struct, those of anonymous members included; {} if unknown."""
        found = self._find(name, KIND_STRUCT)
        return self._members(found, 0) if found > 0 else {}

    def nested(self, name: str, member: str) -> dict[str, Member]:
        """The members of a struct that is a member (drm_gpuva.va), offsets from the outer one."""
        found = self._find(name, KIND_STRUCT)
        if found <= 0:
            return {}
        for label, offset_bits, type_id, _ in self._raw_members(found):
            if label == member:
                return self._members(self._strip(type_id), offset_bits)
        return {}

    def enum_value(self, enum: str, name: str) -> int | None:
        """The value of an enumerator, None where the enum or the name is missing."""
        for kind, item in ((KIND_ENUM, struct.Struct("<Ii")), (KIND_ENUM64, struct.Struct("<III"))):
            found = self._find(enum, kind)
            if found <= 0:
                continue
            address, _, info = self._type(found)
            data = ctypes.string_at(address + 12, (info & 0xFFFF) * item.size)
            for name_offset, value, *_ in item.iter_unpack(data):
                if self._text(name_offset) == name:
                    return int(value)
        return None

    def _find(self, name: str, kind: int) -> int:
        """Once: where a kernel's types are not sorted by name (before 7.0), libbpf goes through
        all of them, a millisecond each time."""
        key = name, kind
        if key not in self._found:
            self._found[key] = int(_lib().btf__find_by_name_kind(self._btf, name.encode(), kind))
        return self._found[key]

    def _text(self, offset: int) -> str:
        value: bytes | None = _lib().btf__name_by_offset(self._btf, offset)
        return (value or b"").decode()

    def _type(self, type_id: int) -> tuple[int, int, int]:
        """Address of a btf_type, its name offset and info word."""
        address = int(_lib().btf__type_by_id(self._btf, type_id))
        name, info = struct.unpack("<II", ctypes.string_at(address, 8))
        return address, name, info

    def _kind(self, type_id: int) -> int:
        return (self._type(type_id)[2] >> 24) & 0x1F

    def _strip(self, type_id: int) -> int:
        """Follow typedefs and qualifiers to the type behind them."""
        while type_id and self._kind(type_id) in _QUALIFIERS:
            type_id = struct.unpack("<I", ctypes.string_at(self._type(type_id)[0] + 8, 4))[0]
        return type_id

    def _raw_members(self, type_id: int) -> list[tuple[str, int, int, int]]:
        """(name, offset in bits, type id, bit-field width or 0) of a struct or union."""
        address, _, info = self._type(type_id)
        data = ctypes.string_at(address + 12, (info & 0xFFFF) * 12)
        result = []
        for name, member_type, word in struct.iter_unpack("<III", data):
            # With kind_flag set the offset word also holds a bit field's width.
            width, offset = (word >> 24, word & 0xFFFFFF) if info >> 31 else (0, word)
            result.append((self._text(name), offset, member_type, width))
        return result

    def _members(self, type_id: int, base_bits: int) -> dict[str, Member]:
        result: dict[str, Member] = {}
        for name, offset, member_type, width in self._raw_members(type_id):
            bits = base_bits + offset
            stripped = self._strip(member_type)
            if not name:
                result.update(self._members(stripped, bits))
                continue
            if width:
                mask = ((1 << width) - 1) << (bits % 8)
                result[name] = Member(bits // 8, (width + bits % 8 + 7) // 8, mask)
                continue
            kind = self._kind(stripped) if stripped else 0
            size = 8 if kind == KIND_PTR else int(_lib().btf__resolve_size(self._btf, member_type))
            result[name] = Member(bits // 8, max(size, 0), pointer=kind == KIND_PTR)
        return result
