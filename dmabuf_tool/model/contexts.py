# SPDX-License-Identifier: GPL-2.0-or-later
"""Contexts: address spaces and their owners.

A device's default DMA domain, an IOMMU domain a driver made for itself (a private domain), a GPU
VM. Domains and GPU VMs take their ids from one counter of the probes, so that an id names one
context. The owner is the process that made it, or that first mapped in it where it was made
before the trace; a kernel worker never owns one: what it does is done for somebody else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dmabuf_tool.model.objects import NEVER
from dmabuf_tool.model.ranges import Ranges, RangeStore
from dmabuf_tool.schema import DOMAIN_TYPE_NAMES, DomainType

MAX_CONTEXTS: Final = 1 << 16
ENDED_CONTEXTS: Final = 1 << 10

PROVIDERS: Final = (
    "unknown", "iommu", "drm_gpuvm", "i915", "amdgpu", "nouveau", "msm", "panfrost", "etnaviv",
    "lima", "v3d",
)  # fmt: skip
"""Who keeps the address space: l2.provider of the probes (bpf/level2.bpf.h)."""
IOMMU: Final = 1
TELL_ALL: Final = frozenset({2})
"""Providers whose probes tell ranges of objects that are no dma-bufs too (bpf/gpuvm.bpf.c)."""
SHARED: Final = frozenset({10})
"""Providers with one address space for all, which nobody owns: v3d."""
UNMANAGED: Final = int(DomainType.PAGING)
"""iommu_domain.type of a driver's own domain: __IOMMU_DOMAIN_PAGING alone."""
GPU_VM: Final = "gpu-vm"
WORKER: Final = "kworker/"
"""How the names of kernel workers begin (kernel/workqueue.c)."""


@dataclass(slots=True, eq=False)
class Context:
    """One address space.

    Attributes:
        kind: the domain's type as sysfs names it, or "gpu-vm"; None while only its id is known.
        device: id of a device in it, 0 unknown.
        tgid, comm: the owner, 0 and "" unknown.
        client: DRM client id, asid or pasid, 0 unknown.
        born_ns: 0 if it is older than the trace. freed_ns: 0 while it lives.
        ranges: what is mapped in it on top of level 1, now.
        mapped, bytes: ranges of buffers mapped in it since the start, and their bytes.
        other_bytes: bytes mapped in it now that belong to no buffer.
    """

    id: int
    kind: str | None = None
    type: int | None = None
    provider: int = IOMMU
    device: int = 0
    tgid: int = 0
    comm: str = ""
    name: str = ""
    client: int = 0
    born_ns: int = 0
    freed_ns: int = 0
    ranges: Ranges = field(default_factory=Ranges)
    mapped: int = 0
    bytes: int = 0
    other_bytes: int = 0
    other_seq: int = NEVER
    """Place in the stream of the first map that was not wholly a buffer's."""
    last: int = -1
    """Slot of the range mapped last, while nothing was cut since; -1 for none."""

    @property
    def is_private(self) -> bool:
        """Whether a driver made it for itself: what is mapped in it is level 2."""
        return self.kind == GPU_VM or self.type == UNMANAGED

    @property
    def live_bytes(self) -> int:
        """Bytes of buffers mapped in it now."""
        rows = self.ranges.rows
        return int((rows["last"] - rows["start"]).sum()) + len(rows)

    def owned_by(self, tgid: int, comm: str) -> None:
        """Take an owner, if there can be one, there is none, and this is no kernel worker."""
        if tgid and not self.tgid and not is_worker(comm) and self.provider not in SHARED:
            self.tgid, self.comm = tgid, comm


class Contexts:
    """All contexts of a trace by id; the last ones freed stay known."""

    def __init__(self, ranges: RangeStore | None = None) -> None:
        self._ranges = ranges
        self.live: dict[int, Context] = {}
        self.ended: deque[Context] = deque(maxlen=ENDED_CONTEXTS)
        self.untracked = 0

    def get(self, number: int) -> Context | None:
        """A context that lives, made at first sight; None for 0 or where there are too many."""
        found = self.live.get(number)
        if found is None and number:
            if len(self.live) >= MAX_CONTEXTS:
                self.untracked += 1
                return None
            found = self.live[number] = Context(number, ranges=Ranges(self._ranges))
        return found

    def find(self, number: int) -> Context | None:
        """A context that lives or is still known."""
        found = self.live.get(number)
        if found is not None or not number:
            return found
        return next((one for one in reversed(self.ended) if one.id == number), None)

    def domain(self, number: int, type_: int) -> Context | None:
        """An IOMMU domain, of which the type is known."""
        context = self.get(number)
        if context is not None:
            context.type = type_
            context.kind = DOMAIN_TYPE_NAMES.get(type_, f"{type_:#x}")
        return context

    def free(self, number: int, ts_ns: int) -> Context | None:
        """It is gone; None if it was not known."""
        context = self.live.pop(number, None)
        if context is not None:
            context.freed_ns = ts_ns
            self.ended.append(context)
        return context

    def all(self) -> list[Context]:
        """Those that live and the last ones freed, by id."""
        return sorted([*self.ended, *self.live.values()], key=lambda one: one.id)


def is_worker(comm: str) -> bool:
    """Whether a thread is a kernel worker."""
    return comm.startswith(WORKER)
