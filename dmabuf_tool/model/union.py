# SPDX-License-Identifier: GPL-2.0-or-later
"""The union of the attachers' constraints: what a layout must keep to serve all of them.

As the series "dma-buf: add support for device constraints" of 2015 meant it: the smallest segment
size, the smallest count, the boundaries and-ed, recalculated at each attach and detach. Address
limits are never combined: a mask is a limit on addresses of that device's own bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmabuf_tool.model.constraints import NO_LIMIT, Source
from dmabuf_tool.model.objects import Site

TOLD = (Source.DECLARED, Source.INFERRED, Source.CONFIGURED)
"""Sources of limits somebody stands for; defaults limit nothing that checks them."""


@dataclass(frozen=True, slots=True)
class Union:
    """What all attached devices take together; 0 is "no limit".

    Each limit comes with the device that contributes it, 0 for none.
    """

    max_segment_size: int = 0
    segment_size_device: int = 0
    max_segment_count: int = 0
    count_device: int = 0
    segment_boundary_mask: int = NO_LIMIT
    boundary_devices: tuple[int, ...] = ()

    def capacity(self) -> int:
        """The largest buffer a layout exists for, bytes; 0: any."""
        return self.max_segment_size * self.max_segment_count

    def serves(self, size: int) -> bool:
        """Whether a buffer of this size has a layout that serves all."""
        return not self.capacity() or self.capacity() >= size


def union(sites: Iterable[Site]) -> Union:
    """The union over the sites of a buffer's attachments."""
    size, size_device, count, count_device = 0, 0, 0, 0
    boundary, boundary_devices = NO_LIMIT, []
    for site in sites:
        force = site.effective
        if force.segment_size_source in TOLD and (not size or force.max_segment_size < size):
            size, size_device = force.max_segment_size, site.device
        if force.max_segment_count and (not count or force.max_segment_count < count):
            count, count_device = force.max_segment_count, site.device
        if force.boundary_source in TOLD:
            boundary &= force.segment_boundary_mask
            boundary_devices.append(site.device)
    return Union(
        size, size_device, count, count_device, boundary, tuple(sorted(set(boundary_devices)))
    )


def tighter(new: Site, others: Sequence[Site]) -> tuple[str, ...]:
    """Names of the limits of `new` that are tighter than those of all `others`.

    Address limits count where neither device is translated: they decide where memory may lie.
    """
    if not others:
        return ()
    out = []
    mine = new.effective
    direct = [site.effective for site in others if not site.limits.translated]
    if not new.limits.translated and direct:
        lowest = min(force.address_limit for force in direct)
        if mine.address_limit < lowest:
            out.append("address limit")
    before = union(others)
    if mine.segment_size_source in TOLD and (
        not before.max_segment_size or mine.max_segment_size < before.max_segment_size
    ):
        out.append("segment size")
    if mine.max_segment_count and (
        not before.max_segment_count or mine.max_segment_count < before.max_segment_count
    ):
        out.append("segment count")
    boundary = before.segment_boundary_mask
    if mine.boundary_source in TOLD and mine.segment_boundary_mask & boundary != boundary:
        out.append("segment boundary")
    return tuple(out)
