# SPDX-License-Identifier: GPL-2.0-or-later
"""Who imports: the importer's function from a call stack, and what importer frameworks need.

No kernel has a field for "needs one contiguous run"; importers check for themselves. The
table says which frameworks do, each with the kernel source that proves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Importer:
    """The function that called dma-buf's attach, and its module ("" for the kernel itself)."""

    function: str
    module: str

    @property
    def source_function(self) -> str:
        """Its name in the source: compilers move error paths into a part of its own (.cold)."""
        return self.function.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.function} [{self.module}]" if self.module else self.function


@dataclass(frozen=True, slots=True)
class Framework:
    """Importers that share code, and what that code asks of a table.

    Attributes:
        contiguous: the table must be one DMA-contiguous run.
        refuses_in: the function that maps a table and, if it is not one run, unmaps it at once;
            a table that was taken is unmapped by another.
        pages: the importer reads struct page from the table.
        vmap_only: it never maps, it uses dma_buf_vmap.
        proof: file and function of the kernel that show it.
    """

    name: str
    modules: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    contiguous: bool = False
    refuses_in: str = ""
    pages: bool = False
    vmap_only: bool = False
    proof: str = ""


UNKNOWN: Final = Framework("unknown")

NAMELESS: Final = "?"
"""A frame that is in no known function (probes/namer.py)."""

# Drivers on the DRM DMA (CMA) helpers: attach comes from drm_gem_prime_import_dev, so the
# driver's name decides (DRM_GEM_DMA_DRIVER_OPS or drm_gem_dma_prime_import_sg_table).
_DRM_DMA_DRIVERS: Final = (
    "arcpgu",
    "aspeed-gfx",
    "atmel-hlcdc-display-controller",
    "drm-clcd-pl111",
    "fsl-dcu-drm",
    "hdlcd",
    "imx-display-subsystem",
    "imx-lcdc",
    "imx-lcdif",
    "ingenic-drm",
    "komeda",
    "logicvc-drm",
    "mali-dp",
    "meson-drm",
    "mxsfb",
    "rcar-du",
    "shmob-drm",
    "sprd-drm",
    "sti-display",
    "stm32-display",
    "sun4i-drm",
    "tidss",
    "tilcdc",
    "vc4-drm",
    "zynqmp-dpsub",
)

FRAMEWORKS: Final = (
    Framework(
        "vb2-dma-contig",
        modules=("videobuf2_dma_contig",),
        prefixes=("vb2_dc_",),
        contiguous=True,
        refuses_in="vb2_dc_map_dmabuf",
        proof="drivers/media/common/videobuf2/videobuf2-dma-contig.c, vb2_dc_map_dmabuf(): "
        "'contiguous chunk is too small', -EFAULT",
    ),
    Framework(
        "vb2-dma-sg",
        modules=("videobuf2_dma_sg",),
        prefixes=("vb2_dma_sg_",),
        proof="drivers/media/common/videobuf2/videobuf2-dma-sg.c, vb2_dma_sg_map_dmabuf() "
        "takes any table",
    ),
    Framework(
        "vb2-vmalloc",
        modules=("videobuf2_vmalloc",),
        prefixes=("vb2_vmalloc_",),
        vmap_only=True,
        proof="drivers/media/common/videobuf2/videobuf2-vmalloc.c, vb2_vmalloc_map_dmabuf() "
        "calls dma_buf_vmap",
    ),
    Framework(
        "drm-gem-dma",
        modules=("drm_dma_helper", "drm_cma_helper"),
        prefixes=("drm_gem_dma_", "drm_gem_cma_"),
        drivers=_DRM_DMA_DRIVERS,
        contiguous=True,
        refuses_in="drm_gem_prime_import_dev",
        proof="drivers/gpu/drm/drm_gem_dma_helper.c, drm_gem_dma_prime_import_sg_table(): "
        "drm_prime_get_contiguous_size() < size gives -EINVAL",
    ),
    Framework(
        "amdxdna",
        modules=("amdxdna",),
        prefixes=("amdxdna_",),
        contiguous=True,
        refuses_in="amdxdna_gem_prime_import",
        proof="drivers/accel/amdxdna/amdxdna_gem.c, amdxdna_gem_prime_import() checks "
        "drm_prime_get_contiguous_size()",
    ),
    Framework(
        "tegra-drm",
        modules=("tegra_drm",),
        prefixes=("tegra_bo_", "tegra_gem_"),
        pages=True,
        proof="drivers/gpu/drm/tegra/gem.c, tegra_bo_iommu_map() calls iommu_map_sgtable "
        "(sg_phys of orig_nents entries)",
    ),
    Framework(
        "msm",
        modules=("msm",),
        prefixes=("msm_gem_",),
        drivers=("msm_mdp", "msm_dpu", "adreno"),
        pages=True,
        proof="drivers/gpu/drm/msm/msm_iommu.c, msm_iommu_map() and msm_iommu_pagetable_map() "
        "use sg_phys()",
    ),
    Framework(
        "rockchip-drm",
        drivers=("rockchip-drm",),
        pages=True,
        proof="drivers/gpu/drm/rockchip/rockchip_drm_gem.c, rockchip_gem_iommu_map() calls "
        "iommu_map_sgtable; without an IOMMU rockchip_gem_dma_map_sg() wants one run",
    ),
    Framework(
        "rdma",
        modules=("ib_core", "ib_uverbs"),
        prefixes=("ib_umem_dmabuf_",),
        proof="drivers/infiniband/core/umem_dmabuf.c takes any table",
    ),
    Framework(
        "iommufd",
        modules=("iommufd",),
        prefixes=("iommufd_", "iopt_"),
        proof="drivers/iommu/iommufd/pages.c attaches and never maps",
    ),
)
"""First match wins: a frame's module, then a function's prefix, then the device's driver."""

# Frames between the importer and the probe: BPF's own, the trampolines of kprobes, dma-buf's.
_OURS: Final = (
    "bpf_",
    "dma_buf_",
    "kretprobe_",
    "__kretprobe_",
    "rethook_",
    "arch_rethook_",
    "ftrace_",
    "kprobe_",
    "trace_call_bpf",
    "perf_trampoline",
)
_FRAME: Final = re.compile(
    r"^(?P<function>[^+\s]+)(?:\+0x[0-9a-f]+)?(?:\s+\[(?P<module>[^\]]+)\])?"
)


def _frame(text: str) -> Importer:
    match = _FRAME.match(text)
    if match is None:
        return Importer(text, "")
    return Importer(match["function"], (match["module"] or "").replace("-", "_"))


def importer_of(frames: tuple[str, ...]) -> Importer | None:
    """Who called dma-buf; None if it is not named.

    The first frame outside of dma-buf's functions. What is inside of them is BPF's, under any
    name: its code may lie where a module's init function was. The stack of a kretprobe has no
    function of dma-buf's: there it is the first frame that is not of the probe.
    """
    own = next((at for at, text in enumerate(frames) if text.startswith("dma_buf_")), 0)
    for text in frames[own:]:
        frame = _frame(text)
        if frame.function == NAMELESS:
            return None
        if not frame.function.startswith(_OURS) and not frame.function.startswith("0x"):
            return frame
    return None


def framework_of(importer: Importer | None, driver: str) -> Framework:
    """The framework of an importer that attached a device of this driver."""
    for framework in FRAMEWORKS:
        if importer is None:
            break
        if importer.module in framework.modules or importer.function.startswith(
            framework.prefixes or ("\0",)
        ):
            return framework
    through_prime = importer is None or importer.function.startswith("drm_")
    for framework in FRAMEWORKS:
        if through_prime and driver in framework.drivers:
            return framework
    return UNKNOWN
