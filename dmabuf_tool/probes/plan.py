# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe plan as data: what is hooked, in which function, and what is lost without it.

A hook has handlers in bpf/ (`on_<hook>_entry`, `on_<hook>_exit`) and one or more kernel functions
to find it in, newest first. `resolve()` decides by what the running kernel's BTF has and what it
allows, never by its version. Where these facts come from: reading of Linux 5.15 to 7.3 and tracing
of the Debian kernels 6.1, 6.12 and 7.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Method = Literal["fentry", "kprobe_multi", "kprobe", "raw_tracepoint", "missing"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing worth hooking. `functions` in order of preference; `lost` completes "without it".

    `entry` and `exit` say which handlers there are. `raw_tracepoint` is used when there is no
    function to hook; its arguments are the handler's. `knows`: the handlers find out by their
    frame whether the first of two programs has told the call; for others the program asks.
    `returns`: whether the function returns a value. `rare`: called so seldom that what its hook
    costs does not matter, next to what it takes to attach it. `beside`: a hook for the same in
    other functions: where that one has its function and this one none, nothing is missing.
    """

    name: str
    subject: str
    functions: tuple[str, ...]
    entry: bool
    exit: bool
    lost: str
    required: bool = False
    raw_tracepoint: str = ""
    knows: bool = False
    returns: bool = True
    rare: bool = False
    beside: str = ""


HOOKS: Final = (
    Hook("export", "buffer", ("dma_buf_export",), False, True, "births of buffers", rare=True),
    Hook(
        *("release", "buffer", ("dma_buf_release",), True, True, "ends of buffers"),
        returns=False,
        rare=True,
    ),
    # dma_buf_attach() jumps to dma_buf_dynamic_attach() in every kernel: hooked once.
    Hook(
        "attach",
        "attach",
        ("dma_buf_dynamic_attach",),
        True,
        True,
        "attachments",
        required=True,
        knows=True,
        rare=True,
    ),
    Hook(
        "detach",
        "attach",
        ("dma_buf_detach",),
        True,
        True,
        "detaches",
        required=True,
        knows=True,
        rare=True,
        returns=False,
    ),
    # dma_buf_map_attachment_unlocked() (6.2) calls dma_buf_map_attachment(): counted once.
    Hook(
        "map",
        "map",
        ("dma_buf_map_attachment",),
        True,
        True,
        "level-1 mappings and their tables",
        required=True,
        knows=True,
    ),
    Hook(
        "unmap",
        "map",
        ("dma_buf_unmap_attachment",),
        True,
        True,
        "ends of level-1 mappings",
        required=True,
        knows=True,
        returns=False,
    ),
    Hook("pin", "buffer", ("dma_buf_pin",), False, True, "pins", rare=True),
    Hook("unpin", "buffer", ("dma_buf_unpin",), True, False, "unpins", rare=True),
    Hook(
        *("cpu_begin", "buffer", ("dma_buf_begin_cpu_access",), False, True, "CPU access"),
        rare=True,
    ),
    Hook(
        *("cpu_end", "buffer", ("dma_buf_end_cpu_access",), False, True, "ends of CPU access"),
        rare=True,
    ),
    # DMA_BUF_IOCTL_SYNC: compilers put dma_buf_end_cpu_access() into it.
    Hook(
        *("cpu_sync", "buffer", ("dma_buf_ioctl",), True, True, "ends of CPU access by ioctl"),
        rare=True,
    ),
    Hook(
        "invalidate",
        "buffer",
        # Linux 7.1: 95308225e5ba renamed dma_buf_move_notify().
        ("dma_buf_invalidate_mappings", "dma_buf_move_notify"),
        True,
        False,
        "moves of buffers",
        rare=True,
    ),
    Hook("device_gone", "attach", ("device_del",), True, False, "removals of devices", rare=True),
    Hook(
        "dma_map_sg",
        "map",
        ("__dma_map_sg_attrs",),
        False,
        True,
        "the DMA API's own errno and attributes inside a map",
        knows=True,
    ),
    Hook(
        "iommu_map",
        "iommu",
        # iommu_map_nosync() took the place of __iommu_map() (in 6.16).
        ("iommu_map_nosync", "__iommu_map"),
        False,
        True,
        "IOMMU mappings",
        knows=True,
    ),
    Hook(
        "iommu_unmap",
        "iommu",
        ("__iommu_unmap",),
        False,
        True,
        "ends of IOMMU mappings",
        knows=True,
    ),
    Hook(
        "domain_attach",
        "domain",
        ("__iommu_attach_device",),
        False,
        True,
        "switches of IOMMU domains",
        rare=True,
    ),
    # What drivers call: __iommu_domain_alloc() is inlined there. The older one was there alone up
    # to 6.10, and went in 6.13: f6440fcc9c7b ("iommu: Remove iommu_domain_alloc()").
    Hook(
        "domain_alloc",
        "domain",
        ("iommu_paging_domain_alloc_flags", "iommu_paging_domain_alloc"),
        False,
        True,
        "births of private IOMMU domains",
        rare=True,
        beside="domain_alloc_bus",
    ),
    Hook(
        "domain_alloc_bus",
        "domain",
        ("iommu_domain_alloc",),
        False,
        True,
        "births of private IOMMU domains",
        rare=True,
        beside="domain_alloc",
    ),
    Hook(
        *("domain_free", "domain", ("iommu_domain_free",), True, False, "ends of IOMMU domains"),
        rare=True,
    ),
    Hook(
        "bounce",
        "iommu",
        (),
        True,
        False,
        "swiotlb bounces",
        raw_tracepoint="swiotlb_bounced",
    ),
    # Only raw: arm-smmu v2 passes a NULL device, which the tracepoint's own code would read.
    Hook(
        "fault",
        "iommu",
        (),
        True,
        False,
        "faults of IOMMUs that raise io_page_fault",
        raw_tracepoint="io_page_fault",
    ),
    # printk:console is raised for each line as it is stored, whatever a console shows of it
    # (kernel/printk/printk.c, printk_sprint()); before Linux 5.19, 701850dc0c31 ("printk, tracing:
    # fix console tracepoint"), for what a console shows.
    Hook(
        "kernel_log",
        "iommu",
        (),
        True,
        False,
        "faults that only the kernel log tells: VT-d, SMMUv3, AMD-Vi",
        raw_tracepoint="console",
    ),
)


@dataclass(frozen=True, slots=True)
class Way:
    """A hook as this kernel allows it. `arity` is the number of the function's arguments.

    `twins`: each program is attached twice, because the kernel may skip one.
    """

    hook: Hook
    method: Method
    function: str = ""
    arity: int = 0
    twins: bool = False

    def to_json(self) -> dict[str, Any]:
        """The entry of the plan in a capture's header and in `doctor`."""
        result = {"hook": self.hook.name, "method": self.method, "function": self.function}
        if self.method == "missing":
            result["lost"] = self.hook.lost
        return result


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the kernel can do, found out by asking it (probes/abilities.py)."""

    fentry: bool
    kprobe_multi: bool
    kprobe: bool
    raw_tracepoint: bool
    preemptible: bool = False
    """Kernel code can be preempted: fentry programs may then be skipped (kernel/preemption.py),
    and have twins."""

    def methods(self, *, rare: bool = False) -> list[Method]:
        """Ways to hook a function, the best first.

        fentry costs least, also with twins where the kernel is preemptible; kprobe_multi loses
        nothing to preemption, and needs no twins: ftrace goes over all its records once for a
        link, where a second program of a trampoline takes it twice, and each of four. A kretprobe
        has a limited number of calls under way, ten or twice the CPUs, and what is beyond goes
        unseen.
        """
        order: tuple[Method, ...] = ("fentry", "kprobe_multi", "kprobe")
        if rare and self.preemptible:
            order = ("kprobe_multi", "fentry", "kprobe")
        return [method for method in order if getattr(self, method)]

    def to_json(self) -> dict[str, bool]:
        """As in `doctor --json`."""
        return asdict(self)


def resolve(
    abilities: Abilities,
    arity: Callable[[str], int | None],
    has_tracepoint: Callable[[str], bool],
    refused: Collection[tuple[str, str]] = (),
    hooks: tuple[Hook, ...] = HOOKS,
) -> list[Way]:
    """Choose a way for every hook; those that another stands in for are left out.

    `arity` gives the number of arguments of a function in BTF, None where BTF has it not;
    `refused` holds (function, method) pairs that the kernel turned down when they were tried: BTF
    also lists functions whose only copy is inlined or .isra.
    """
    ways = [_way(hook, abilities, arity, has_tracepoint, refused) for hook in hooks]
    there = {way.hook.name for way in ways if way.method != "missing"}

    def is_needless(way: Way) -> bool:
        none = all(arity(function) is None for function in way.hook.functions)
        return way.method == "missing" and none and way.hook.beside in there

    return [way for way in ways if not is_needless(way)]


def _way(
    hook: Hook,
    abilities: Abilities,
    arity: Callable[[str], int | None],
    has_tracepoint: Callable[[str], bool],
    refused: Collection[tuple[str, str]],
) -> Way:
    for function in hook.functions:
        count = arity(function)
        for method in abilities.methods(rare=hook.rare):
            if count is not None and (function, method) not in refused:
                twins = method == "fentry" and abilities.preemptible
                return Way(hook, method, function, count, twins)
    tracepoint = hook.raw_tracepoint
    if (
        tracepoint
        and abilities.raw_tracepoint
        and has_tracepoint(tracepoint)
        and (tracepoint, "raw_tracepoint") not in refused
    ):
        return Way(hook, "raw_tracepoint", tracepoint)
    return Way(hook, "missing")


def missing(ways: list[Way]) -> list[Way]:
    """The hooks this kernel does not allow."""
    return [way for way in ways if way.method == "missing"]
