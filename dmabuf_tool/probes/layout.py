# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel structs for the BPF programs: the few members they read, at the running kernel's offsets.

`STRUCTS` says in C what is read; `header()` looks each member up in BTF and writes a definition
with the members at their places, so that the programs say `d->size` and need no kernel headers.
A member that not every kernel has is marked with `?` and gives `#define HAVE_<STRUCT>_<MEMBER>`
where it is there. `a.b` is member b of the embedded struct a, called `a_b`.
"""

from __future__ import annotations

from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf, Member

# struct -> member -> C type ("{}" is where the name goes). Offsets: BTF, never a version number.
STRUCTS: Final[dict[str, dict[str, str]]] = {
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

# Enumerators that moved or came late: defined where the kernel has them.
ENUMS: Final = (
    # Device flags became a bitmap (in 7.2); dma_coherent was a bit field of device before.
    ("struct_device_flags", "DEV_FLAG_DMA_COHERENT"),
)

# Bit fields the programs test by hand: (struct, member), -> <STRUCT>_<MEMBER>_{BYTE,MASK}.
BITFIELDS: Final = (("device", "dma_coherent"),)


def _find(btf: Btf, struct: str, member: str) -> Member | None:
    outer, _, inner = member.partition(".")
    if inner:
        return btf.nested(struct, outer).get(inner)
    return btf.members(struct).get(outer)


def _define(btf: Btf, struct: str, members: dict[str, str]) -> list[str]:
    size = btf.size_of(struct)
    if not size:
        raise ToolError(f"the kernel's BTF has no struct {struct}; dma-bufs cannot be traced here")
    macros = []
    lines = [f"struct {struct} {{", "\tunion {", f"\t\tchar _size[{size}];"]
    for spec, c_type in members.items():
        member = spec.removesuffix("?")
        found = _find(btf, struct, member)
        if found is None:
            if spec.endswith("?"):
                continue
            raise ToolError(
                f"the kernel's struct {struct} has no member {member};"
                " this kernel is not known to dmabuf-tool"
            )
        name = member.replace(".", "_")
        if spec.endswith("?"):
            macros.append(f"#define HAVE_{struct.upper()}_{name.upper()} 1")
        pad = f"char _pad_{name}[{found.offset}]; " if found.offset else ""
        lines.append(f"\t\tstruct {{ {pad}{c_type.format(name)}; }} __attribute__((packed));")
    return [*macros, *lines, "\t};", "};"]


def definitions(btf: Btf, structs: dict[str, dict[str, str]]) -> str:
    """C definitions of other structs, as in STRUCTS; `btf` may be a module's.

    Raises ToolError where a struct or a required member is missing.
    """
    lines = [f"struct {name};" for name in structs]
    for struct, members in structs.items():
        lines += _define(btf, struct, members)
    return "\n".join(lines) + "\n"


def header(btf: Btf) -> str:
    """C definitions of STRUCTS for the kernel `btf` describes.

    Raises ToolError where a struct or a required member is missing.
    """
    lines = [f"struct {name};" for name in STRUCTS]
    for struct, members in STRUCTS.items():
        lines += _define(btf, struct, members)
    for enum, name in ENUMS:
        value = btf.enum_value(enum, name)
        if value is not None:
            lines.append(f"#define {name} {value}")
    lines.append("#define IOMMU_DOMAIN_DMA_API 2  /* __IOMMU_DOMAIN_DMA_API */")
    return "\n".join(lines) + "\n" + "".join(bitfield(btf, *one) for one in BITFIELDS)


def bitfield(btf: Btf, struct: str, member: str) -> str:
    """Macros to test a bit field by hand; nothing where the struct has no such bit field."""
    found = btf.members(struct).get(member)
    if found is None or not found.mask:
        return ""
    prefix = f"{struct}_{member}".upper()
    return f"#define {prefix}_BYTE {found.offset}\n#define {prefix}_MASK {found.mask}\n"
