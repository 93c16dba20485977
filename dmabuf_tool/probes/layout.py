# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel structs for the BPF programs: the few members they read, and where a kernel keeps them.

`STRUCTS` says in C what is read. `define()` writes definitions with the members at marks
(marks.py), the same for every kernel, so that the programs say `LOAD(d, size)` and need no kernel
headers; `values()` looks each member up in BTF, for the loader to put in the marks' places. A
member that not every kernel has is written with `?` and has a fact HAVE(struct, member). `a.b` is
member b of the embedded struct a, called `a_b`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import marks
from dmabuf_tool.probes.marks import Marks

Structs = dict[str, dict[str, str]]
"""Struct -> member -> C type, with "{}" where the name goes."""

BitFields = Collection[tuple[str, str]]
"""Bit fields of one bit, as (struct, member): READ_BIT(struct, pointer, member)."""

# Offsets: BTF, never a version number.
STRUCTS: Final[Structs] = {
    "task_struct": {"comm": "char {}[16]"},
    "inode": {"i_ino": "unsigned long {}"},  # u64 from 7.1; the same 8 bytes
    "file": {"f_inode": "struct inode *{}", "private_data": "void *{}"},
    "dentry": {"d_fsdata": "void *{}", "d_inode": "struct inode *{}"},
    "dma_buf_ops": {"pin": "void *{}"},
    "dma_buf": {
        "size": "size_t {}",
        "file": "struct file *{}",
        "ops": "struct dma_buf_ops *{}",
        "exp_name": "const char *{}",
        "name": "const char *{}",
    },
    "dma_buf_export_info": {"exp_name": "const char *{}", "size": "size_t {}"},
    "dma_buf_attach_ops": {"allow_peer2peer": "bool {}"},
    "scatterlist": {
        "page_link": "unsigned long {}",
        "offset": "unsigned int {}",
        "length": "unsigned int {}",
        "dma_address": "u64 {}",
        "dma_length": "unsigned int {}",
        "dma_flags?": "unsigned int {}",
    },
    "sg_table": {
        "sgl": "struct scatterlist *{}",
        "nents": "unsigned int {}",
        "orig_nents": "unsigned int {}",
    },
    "dma_buf_attachment": {
        "dmabuf": "struct dma_buf *{}",
        "dev": "struct device *{}",
        "peer2peer": "bool {}",
        "sgt?": "struct sg_table *{}",
        "dir?": "unsigned int {}",
    },
    "device_dma_parameters": {
        "max_segment_size": "unsigned int {}",
        "min_align_mask": "unsigned int {}",
        "segment_boundary_mask": "unsigned long {}",
    },
    "iommu_domain": {
        "type": "unsigned int {}",
        "pgsize_bitmap": "unsigned long {}",
        "geometry.aperture_start": "u64 {}",
        "geometry.aperture_end": "u64 {}",
    },
    "iommu_group": {"id": "int {}", "domain": "struct iommu_domain *{}"},
    "bus_type": {"name": "const char *{}"},
    "device_driver": {"name": "const char *{}"},
    "device": {
        "kobj.name": "const char *{}",
        "bus": "struct bus_type *{}",
        "driver": "struct device_driver *{}",
        "dma_mask": "u64 *{}",
        "coherent_dma_mask": "u64 {}",
        "bus_dma_limit": "u64 {}",
        "dma_parms": "struct device_dma_parameters *{}",
        "iommu_group": "struct iommu_group *{}",
        "flags?": "unsigned long {}",
    },
}

BITFIELDS: Final[BitFields] = (("device", "dma_coherent"),)

# Enumerators that moved or came late, as bits: zero where a kernel has them not.
FLAGS: Final = (
    # Device flags became a bitmap (in 7.2); dma_coherent was a bit field of device before.
    ("struct_device_flags", "DEV_FLAG_DMA_COHERENT"),
)

LOOP: Final = "LOOP"
"""Whether the kernel has bpf_loop() (repeat() in bpf/core.bpf.h)."""

SCATTERLIST_SIZE: Final = 32
"""Of struct scatterlist with CONFIG_NEED_SG_DMA_LENGTH, which x86_64 and arm64 select: entries are
copied as they are (table.bpf.h), and read as such (schema.py)."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """C definitions for a text, and the names of the marks in them, by number."""

    text: str
    names: dict[int, str]


def define(structs: Structs, bits: BitFields = (), facts: Collection[str] = ()) -> Definitions:
    """Structs for every kernel; `facts` are what else the programs are told, by name."""
    all_marks = Marks()
    lines = [f"struct {name};" for name in structs]
    for struct, members in structs.items():
        types = dict(members) | {member: "u8 {}" for outer, member in bits if outer == struct}
        lines += _definition(struct, types, all_marks)
    optional = (
        _have(struct, spec)
        for struct, members in structs.items()
        for spec in members
        if spec.endswith("?")
    )
    macros = marks.macros([*facts, *optional, *(_mask(*one) for one in bits)], all_marks)
    return Definitions("\n".join((marks.defines() + macros, *lines, "")), all_marks.names())


def _definition(struct: str, members: dict[str, str], all_marks: Marks) -> list[str]:
    lines = [f"struct {struct} {{", "\tunion {"]
    for spec, c_type in members.items():
        member = spec.removesuffix("?")
        name = member.replace(".", "_")
        pad = f"char _pad_{name}[{all_marks.member(f'{struct}.{member}')}];"
        lines.append(f"\t\tstruct {{ {pad} {c_type.format(name)}; }} __attribute__((packed));")
    return [*lines, "\t};", "};"]


def _have(struct: str, spec: str) -> str:
    return f"HAVE_{struct}_{marks.spelled(spec.removesuffix('?'))}"


def _mask(struct: str, member: str) -> str:
    return f"MASK_{struct}_{member}"


def values(btf: Btf, structs: Structs = STRUCTS, bits: BitFields = BITFIELDS) -> dict[str, int]:
    """What stands at the marks, for the kernel `btf` describes, or for a module's structs.

    Raises ToolError where a struct or a required member is missing.
    """
    found: dict[str, int] = {}
    for struct, members in structs.items():
        there = btf.members(struct)
        if not there:
            raise ToolError(
                f"the kernel's BTF has no struct {struct}; dma-bufs cannot be traced here"
            )
        for spec in members:
            member = spec.removesuffix("?")
            outer, _, inner = member.partition(".")
            place = btf.nested(struct, outer).get(inner) if inner else there.get(member)
            if place is None and not spec.endswith("?"):
                raise ToolError(
                    f"the kernel's struct {struct} has no member {member};"
                    " this kernel is not known to dmabuf-tool"
                )
            found[f"{struct}.{member}"] = place.offset if place else 0
            if spec.endswith("?"):
                found[_have(struct, spec)] = int(place is not None)
    for struct, member in bits:
        place = btf.members(struct).get(member)
        found[f"{struct}.{member}"] = place.offset if place else 0
        found[_mask(struct, member)] = place.mask if place else 0
    return found


def kernel_values(btf: Btf) -> dict[str, int]:
    """values() of STRUCTS, and what else a kernel is asked.

    Raises ToolError as values(), and where its scatterlists are not as known.
    """
    if btf.size_of("scatterlist") != SCATTERLIST_SIZE:
        raise ToolError(
            f"the kernel's struct scatterlist has not {SCATTERLIST_SIZE} bytes;"
            " this kernel is not known to dmabuf-tool"
        )
    flags = {name: btf.enum_value(enum, name) for enum, name in FLAGS}
    return {
        **values(btf),
        **{name: 0 if bit is None else 1 << bit for name, bit in flags.items()},
        LOOP: int(btf.enum_value("bpf_func_id", "BPF_FUNC_loop") is not None),
    }
