# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers as data: modules that keep address spaces of their own.

Each has its handlers in bpf/<subject>.bpf.c, on top of bpf/level2.bpf.h. Where the facts come
from: BTF and symbols of the Debian kernels 6.1, 6.12 and 7.2 (x86_64) and 6.12 (arm64), with the
modules loaded, and reading of Linux 5.15 to 7.3. A hook that is `required` is one without which
ranges would be wrong: a provider that lacks it is left out (modules.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dmabuf_tool.probes.layout import Structs
from dmabuf_tool.probes.plan import Hook


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One module: what is hooked in it, and the members its programs read.

    `arities`: functions whose handlers count on their number of arguments. `no_fentry`: functions
    that fentry programs cannot read on some kernels, so that it is not tried: the verifier knew no
    type for a pointer to a pointer (btf_ctx_access(), kernel/bpf/btf.c), and arm64's trampolines
    took eight arguments (arch/arm64/net/bpf_jit_comp.c, Linux 6.12).
    """

    module: str
    hooks: tuple[Hook, ...]
    structs: Structs
    bitfields: tuple[tuple[str, str], ...] = ()
    arities: Mapping[str, int] = field(default_factory=dict)
    no_fentry: tuple[str, ...] = ()

    def refused(self) -> set[tuple[str, str]]:
        """As plan.resolve() takes it, before anything was tried."""
        return {(function, "fentry") for function in self.no_fentry}


def _enter(name: str, subject: str, function: str, lost: str, *, required: bool = False) -> Hook:
    return Hook(name, subject, (function,), True, False, lost, required)


def _leave(name: str, subject: str, function: str, lost: str, *, required: bool = False) -> Hook:
    return Hook(name, subject, (function,), False, True, lost, required)


def _traced(name: str, subject: str, tracepoint: str, lost: str, *, required: bool = False) -> Hook:
    return Hook(name, subject, (), True, False, lost, required, raw_tracepoint=tracepoint)


_OBJECT: Final[Structs] = {
    "drm_device": {"dev": "struct device *{}"},
    "drm_gem_object": {
        "dev": "struct drm_device *{}",
        "size": "size_t {}",
        "dma_buf": "struct dma_buf *{}",
        "import_attach": "struct dma_buf_attachment *{}",
    },
}
"""How a GEM object is tied to its buffer, in every DRM driver."""

_TTM: Final[Structs] = {**_OBJECT, "ttm_buffer_object": {"base": "char {}"}}
_SHMEM: Final[Structs] = {**_OBJECT, "drm_gem_shmem_object": {"base": "char {}"}}

PROVIDERS: Final = (
    # In a module of its own from 6.7; all VM_BIND drivers go through it (xe, nouveau, panthor,
    # powervr, msm from 6.17): drm_gpuva_map(), _remap() and _unmap() call insert and remove.
    Provider(
        "drm_gpuvm",
        (
            _leave("gpuva_insert", "gpuvm", "drm_gpuva_insert", "GPU VM maps", required=True),
            _enter("gpuva_remove", "gpuvm", "drm_gpuva_remove", "GPU VM unmaps", required=True),
            _leave("gpuvm_init", "gpuvm", "drm_gpuvm_init", "births of GPU VMs"),
            _enter("gpuvm_put", "gpuvm", "drm_gpuvm_put", "ends of GPU VMs"),
        ),
        {
            **_OBJECT,
            "drm_device": {"dev": "struct device *{}", "driver": "struct drm_driver *{}"},
            "drm_driver": {"name": "const char *{}"},
            "drm_gpuvm": {
                "name": "const char *{}",
                "drm": "struct drm_device *{}",
                "kref": "unsigned int {}",
            },
            "drm_gpuva": {
                "vm": "struct drm_gpuvm *{}",
                "va.addr": "u64 {}",
                "va.range": "u64 {}",
                "gem.offset": "u64 {}",
                "gem.obj": "struct drm_gem_object *{}",
            },
        },
        no_fentry=("drm_gpuvm_init",),
    ),
    # Only what drm_gpuvm cannot know.
    Provider(
        "xe",
        (_leave("xe_vm_lookup", "xe", "xe_vm_lookup", "asids of xe's VMs", required=True),),
        {
            **_OBJECT,
            "xe_vm": {
                "gpuvm": "char {}",
                "gpuvm.drm": "struct drm_device *{}",
                "usm.asid": "unsigned int {}",
            },
        },
    ),
    # The arguments of i915_vma_bind() changed between 5.15 and 6.6, its tracepoint's did not.
    Provider(
        "i915",
        (
            _traced("i915_bind", "i915", "i915_vma_bind", "i915 maps", required=True),
            _traced("i915_unbind", "i915", "i915_vma_unbind", "i915 unmaps", required=True),
            _traced(
                "i915_ppgtt_create", "i915", "i915_ppgtt_create", "births of i915 address spaces"
            ),
            _traced(
                "i915_ppgtt_release", "i915", "i915_ppgtt_release", "ends of i915 address spaces"
            ),
        ),
        {
            **_OBJECT,
            "drm_file": {"client_id?": "u64 {}"},  # Linux 6.5: 3f09a0cd4ea3
            "drm_i915_file_private": {"file": "struct drm_file *{}"},
            "drm_i915_gem_object": {"base": "char {}"},
            "i915_address_space": {
                "dma": "struct device *{}",
                "fpriv?": "struct drm_i915_file_private *{}",
            },
            "i915_vma": {
                "node.start": "u64 {}",
                "vm": "struct i915_address_space *{}",
                "obj": "struct drm_i915_gem_object *{}",
                "size": "u64 {}",
                "guard?": "unsigned int {}",
            },
        },
        bitfields=(("i915_address_space", "is_ggtt"),),
    ),
    # The tracepoint of unmaps has no VM when mappings are cleared: functions.
    Provider(
        "amdgpu",
        (
            _leave("amdgpu_map", "amdgpu", "amdgpu_vm_bo_map", "amdgpu maps", required=True),
            Hook(
                *("amdgpu_replace", "amdgpu", ("amdgpu_vm_bo_replace_map",), True, True),
                *("amdgpu maps in place of others", True),
            ),
            _enter("amdgpu_unmap", "amdgpu", "amdgpu_vm_bo_unmap", "amdgpu unmaps", required=True),
            _enter(
                *("amdgpu_clear", "amdgpu", "amdgpu_vm_bo_clear_mappings"),
                *("amdgpu unmaps of ranges",),
                required=True,
            ),
            _enter(
                *("amdgpu_bo_del", "amdgpu", "amdgpu_vm_bo_del", "amdgpu objects that leave VMs"),
                required=True,
            ),
            _leave("amdgpu_vm_init", "amdgpu", "amdgpu_vm_init", "births of amdgpu VMs"),
            _enter("amdgpu_vm_fini", "amdgpu", "amdgpu_vm_fini", "ends of amdgpu VMs"),
        ),
        {
            **_TTM,
            "amdgpu_device": {"dev": "struct device *{}"},
            "amdgpu_bo": {"tbo": "char {}"},
            "amdgpu_vm": {"pasid": "unsigned int {}"},
            "amdgpu_bo_va": {
                "base.vm": "struct amdgpu_vm *{}",
                "base.bo": "struct amdgpu_bo *{}",
                "valids": "u64 {}",
                "invalids": "u64 {}",
            },
            "amdgpu_bo_va_mapping": {"list": "u64 {}", "start": "u64 {}", "last": "u64 {}"},
        },
        arities={
            "amdgpu_vm_bo_map": 6,
            "amdgpu_vm_bo_replace_map": 6,
            "amdgpu_vm_bo_unmap": 3,
            "amdgpu_vm_bo_clear_mappings": 4,
            "amdgpu_vm_bo_del": 2,
        },
    ),
    Provider(
        "nouveau",
        (
            Hook(
                *("nouveau_new", "nouveau", ("nouveau_vma_new",), True, True),
                *("which objects nouveau maps", True),
            ),
            _leave("nouveau_map", "nouveau", "nouveau_vma_map", "nouveau maps", required=True),
            _enter(
                "nouveau_unmap", "nouveau", "nouveau_vma_unmap", "nouveau unmaps", required=True
            ),
            _enter("nouveau_del", "nouveau", "nouveau_vma_del", "nouveau unmaps", required=True),
            _leave("nouveau_vmm_init", "nouveau", "nouveau_vmm_init", "births of nouveau VMs"),
            _enter("nouveau_vmm_fini", "nouveau", "nouveau_vmm_fini", "ends of nouveau VMs"),
        ),
        {
            **_TTM,
            "nouveau_bo": {"bo": "char {}"},
            "nouveau_drm": {"dev": "struct drm_device *{}"},
            "nouveau_cli": {"drm": "struct nouveau_drm *{}", "name": "char {}"},
            "nouveau_vmm": {"cli": "struct nouveau_cli *{}"},
            "nouveau_vma": {
                "vmm": "struct nouveau_vmm *{}",
                "refs": "int {}",
                "addr": "u64 {}",
                "mem": "void *{}",
            },
        },
        arities={"nouveau_vma_new": 3, "nouveau_vma_map": 2, "nouveau_vmm_init": 3},
        no_fentry=("nouveau_vma_new", "nouveau_vma_del"),
    ),
    # From 6.17 an offset comes before the length, and msm goes through drm_gpuvm.
    Provider(
        "msm",
        (
            _leave("msm_map", "msm", "msm_iommu_pagetable_map", "msm maps", required=True),
            _enter("msm_unmap", "msm", "msm_iommu_pagetable_unmap", "msm unmaps", required=True),
            _leave("msm_create", "msm", "msm_iommu_pagetable_create", "births of msm page tables"),
            _enter("msm_destroy", "msm", "msm_iommu_pagetable_destroy", "ends of msm page tables"),
        ),
        {**_OBJECT, "msm_mmu": {"dev": "struct device *{}"}},
        arities={"msm_iommu_pagetable_map": 5, "msm_iommu_pagetable_unmap": 3},
    ),
    Provider(
        "panfrost",
        (
            _leave("panfrost_map", "panfrost", "panfrost_mmu_map", "panfrost maps", required=True),
            _enter(
                *("panfrost_unmap", "panfrost", "panfrost_mmu_unmap", "panfrost unmaps"),
                required=True,
            ),
            _leave(
                *("panfrost_create", "panfrost", "panfrost_mmu_ctx_create"),
                *("births of panfrost address spaces",),
            ),
            _enter(
                *("panfrost_put", "panfrost", "panfrost_mmu_ctx_put"),
                *("ends of panfrost address spaces",),
            ),
        ),
        {
            **_SHMEM,
            "panfrost_device": {"dev": "struct device *{}"},
            "panfrost_gem_object": {"base": "char {}"},
            "panfrost_mmu": {"pfdev": "struct panfrost_device *{}", "refcount": "unsigned int {}"},
            "panfrost_gem_mapping": {
                "obj": "struct panfrost_gem_object *{}",
                "mmnode.start": "u64 {}",
                "mmnode.size": "u64 {}",
                "mmu": "struct panfrost_mmu *{}",
            },
        },
    ),
    Provider(
        "etnaviv",
        (
            _leave(
                "etnaviv_map", "etnaviv", "etnaviv_iommu_map_gem", "etnaviv maps", required=True
            ),
            _enter(
                *("etnaviv_unmap", "etnaviv", "etnaviv_iommu_unmap_gem", "etnaviv unmaps"),
                required=True,
            ),
            # Linux 6.0: 5a40837debaa; inside its callers before.
            _enter(
                *("etnaviv_reap", "etnaviv", "etnaviv_iommu_reap_mapping"),
                *("etnaviv unmaps for want of addresses",),
                required=True,
            ),
            _leave(
                *("etnaviv_init", "etnaviv", "etnaviv_iommu_context_init"),
                *("births of etnaviv contexts",),
            ),
            _enter(
                *("etnaviv_put", "etnaviv", "etnaviv_iommu_context_put"),
                *("ends of etnaviv contexts",),
            ),
        ),
        {
            **_OBJECT,
            "etnaviv_iommu_global": {"dev": "struct device *{}"},
            "etnaviv_gem_object": {"base": "char {}"},
            "etnaviv_iommu_context": {
                "refcount": "unsigned int {}",
                "global": "struct etnaviv_iommu_global *{}",
            },
            "etnaviv_vram_mapping": {
                "object": "struct etnaviv_gem_object *{}",
                "context": "struct etnaviv_iommu_context *{}",
                "iova": "unsigned int {}",
            },
        },
        arities={"etnaviv_iommu_map_gem": 5, "etnaviv_iommu_unmap_gem": 2},
    ),
    Provider(
        "lima",
        (
            _leave("lima_add", "lima", "lima_vm_bo_add", "lima maps", required=True),
            _enter("lima_del", "lima", "lima_vm_bo_del", "lima unmaps", required=True),
            _leave("lima_create", "lima", "lima_vm_create", "births of lima address spaces"),
            _enter("lima_release", "lima", "lima_vm_release", "ends of lima address spaces"),
        ),
        {
            **_SHMEM,
            "lima_device": {"dev": "struct device *{}"},
            "lima_vm": {"refcount": "unsigned int {}", "dev": "struct lima_device *{}"},
            "lima_bo": {"base": "char {}", "va": "u64 {}"},
            "lima_bo_va": {
                "list": "u64 {}",
                "ref_count": "unsigned int {}",
                "node.start": "u64 {}",
                "node.size": "u64 {}",
                "vm": "struct lima_vm *{}",
            },
        },
        arities={"lima_vm_bo_add": 3, "lima_vm_bo_del": 2},
    ),
    Provider(
        "v3d",
        (
            _leave("v3d_map", "v3d", "v3d_mmu_insert_ptes", "v3d maps", required=True),
            _enter("v3d_unmap", "v3d", "v3d_mmu_remove_ptes", "v3d unmaps", required=True),
        ),
        {
            **_SHMEM,
            "v3d_bo": {"base": "char {}", "node.start": "u64 {}", "node.size": "u64 {}"},
        },
    ),
)
