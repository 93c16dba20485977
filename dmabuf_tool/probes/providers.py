# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers: modules that keep address spaces of their own, their hooks and structs.

A provider's hooks are part of the plan when its module is loaded. fentry on a module function
needs the module's BTF at load time; kprobes go by name and are used instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import VMLINUX, Btf
from dmabuf_tool.probes import layout
from dmabuf_tool.probes.plan import Hook

_MODULES: Final = Path("/sys/module")


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One module: what is hooked in it, and the members its programs read."""

    module: str
    hooks: tuple[Hook, ...]
    structs: dict[str, dict[str, str]]

    @property
    def is_loaded(self) -> bool:
        """Whether the module is there now."""
        return (_MODULES / self.module).is_dir() and (VMLINUX.parent / self.module).exists()


PROVIDERS: Final = (
    # In a module of its own from 6.7; all VM_BIND drivers go through it (xe, nouveau, panthor,
    # powervr, msm from 6.17): drm_gpuva_map(), _remap() and _unmap() call insert and remove.
    Provider(
        "drm_gpuvm",
        (
            Hook("gpuva_insert", "gpuvm", ("drm_gpuva_insert",), False, True, "GPU VM maps"),
            Hook("gpuva_remove", "gpuvm", ("drm_gpuva_remove",), True, False, "GPU VM unmaps"),
            Hook("gpuvm_init", "gpuvm", ("drm_gpuvm_init",), False, True, "births of GPU VMs"),
            Hook("gpuvm_put", "gpuvm", ("drm_gpuvm_put",), True, False, "ends of GPU VMs"),
        ),
        {
            "drm_device": {"dev": "struct device *{}"},
            "drm_gem_object": {
                "dma_buf": "struct dma_buf *{}",
                "import_attach": "struct dma_buf_attachment *{}",
            },
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
    ),
)


class Modules:
    """The providers that are there, with their BTF on top of the kernel's.

    A provider whose structs are not as expected is left out: it must not cost the trace.
    """

    def __init__(self, base: Btf) -> None:
        self._base = base
        self._btfs: list[Btf] = []
        self.hooks: tuple[Hook, ...] = ()
        self.structs: dict[str, str] = {}
        """Subject -> C definitions of what it reads."""
        for one in PROVIDERS:
            if one.is_loaded:
                self._add(one)

    def _add(self, one: Provider) -> None:
        try:
            btf = Btf(VMLINUX.parent / one.module, self._base)
            text = layout.definitions(btf, one.structs)
        except ToolError:
            return
        self._btfs.append(btf)
        self.hooks += one.hooks
        for hook in one.hooks:
            self.structs[hook.subject] = text

    @property
    def refused(self) -> set[tuple[str, str]]:
        """fentry on the functions of modules."""
        return {(function, "fentry") for hook in self.hooks for function in hook.functions}

    def arity(self, function: str) -> int | None:
        """As Btf.arity, in the kernel or in a provider."""
        for btf in (self._base, *self._btfs):
            if (count := btf.arity(function)) is not None:
                return count
        return None
