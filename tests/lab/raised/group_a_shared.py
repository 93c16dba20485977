# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes of group A: refusals, bounces, and several devices on one buffer."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from lab import Fail, Shape
from scene import PAGE, Evidence, F, Stage, scene, uapi

LOW = 32
"""Bits of a mask that pages above 4 GiB are beyond; the kernel takes those first."""


def refusing(stage: Stage, bad: bool, step: Fail, error: int, flags: int = 0) -> int:
    """A buffer that refuses one step."""
    return stage.export(flags=flags, fail_step=step if bad else Fail.NONE, fail_error=error)


@scene("A", "attach-refused", "error")
def attach(stage: Stage, bad: bool) -> Evidence:
    """The exporter's attach returns -ENODEV."""
    fd, device = refusing(stage, bad, Fail.ATTACH, errno.ENODEV), stage.platform()
    if bad:
        stage.refused(lambda: stage.driver.attach(fd, device))
    else:
        stage.driver.attach(fd, device)
    return {"errno": "-ENODEV", "step": "attach"}


@scene("A", "map-refused", "error")
def map_by_exporter(stage: Stage, bad: bool) -> Evidence:
    """The exporter's map returns -ENOSPC."""
    fd = refusing(stage, bad, Fail.MAP, errno.ENOSPC)
    attachment = stage.driver.attach(fd, stage.platform())
    if bad:
        stage.refused(lambda: stage.driver.map(attachment))
    else:
        stage.driver.map(attachment)
    return {"errno": "-ENOSPC", "dma_errno": None, "step": "exporter", "size": 16 * PAGE}


@scene("A", "map-refused", "error")
def map_by_null(stage: Stage, bad: bool) -> Evidence:
    """The exporter's map returns NULL, which becomes -ENOMEM."""
    fd = refusing(stage, bad, Fail.MAP, errno.ENOSPC, F.FAIL_NULL)
    attachment = stage.driver.attach(fd, stage.platform())
    if bad:
        stage.refused(lambda: stage.driver.map(attachment))
    else:
        stage.driver.map(attachment)
    return {"errno": "-ENOMEM", "dma_errno": None, "step": "exporter"}


@scene("A", "map-refused", "error", where="x86_64")
def map_by_swiotlb(stage: Stage, bad: bool) -> Evidence:
    """A high entry of 512 KiB does not fit swiotlb; one of 128 KiB does."""
    pages = 128 if bad else 32
    attachment = stage.driver.attach(stage.export(pages, pages), stage.platform(LOW))
    if bad:
        stage.refused(lambda: stage.driver.map(attachment))
        stage.log("swiotlb buffer is full", "overflow")
    else:
        stage.driver.map(attachment)
    return {"errno": "-EIO", "dma_errno": "-EIO", "step": "DMA API", "size": pages * PAGE}


@scene("A", "pin-refused", "error")
def pin(stage: Stage, bad: bool) -> Evidence:
    """The exporter's pin returns -EINVAL."""
    fd = refusing(stage, bad, Fail.PIN, errno.EINVAL, F.DYNAMIC)
    attachment = stage.driver.attach(fd, stage.edu[0], F.DYNAMIC)
    if bad:
        stage.refused(lambda: stage.driver.pin(attachment))
    else:
        stage.driver.pin(attachment)
        stage.driver.unpin(attachment)
    return {"errno": "-EINVAL", "step": "pin", "size": 16 * PAGE}


@scene("A", "p2p-downgraded", "warning")
def too_far_for_pci(stage: Stage, bad: bool) -> Evidence:
    """An importer allows peer to peer; the buffer is memory of another PCI device, with nothing
    between the two that lets them talk, or of none that needs it."""
    owner, other = stage.edu[:2]
    far = {"device": owner, "flags": F.DYNAMIC | F.P2P}
    fd = stage.export(**far if bad else {"flags": F.DYNAMIC})
    stage.driver.attach(fd, other, F.DYNAMIC | F.P2P)
    # A kernel without CONFIG_PCI_P2PDMA never lets them, and has no word for it.
    if bad and "pci_p2pdma_distance_many" in Path("/proc/kallsyms").read_text():
        assert stage.log("cannot be used for peer-to-peer DMA")
    os.close(fd)
    return {"allow_peer2peer": True, "peer2peer": False}


@scene("A", "bounced", "warning", where="x86_64")
def high_pages(stage: Stage, bad: bool) -> Evidence:
    """Pages above 4 GiB, or below, for a device of 32 bits."""
    m = stage.mapped(stage.platform(LOW), flags=0 if bad else F.DMA32)
    assert m.dma_sum == 16 * PAGE
    return {"bounced_bytes": 16 * PAGE, "bounces": 1, "skip_cpu_sync": False}


@scene("A", "bounced", "error", where="x86_64")
def never_copied(stage: Stage, bad: bool) -> Evidence:
    """Bounced, and mapped with SKIP_CPU_SYNC, or not."""
    stage.mapped(stage.platform(LOW), flags=F.SKIP_SYNC if bad else 0)
    return {"skip_cpu_sync": True, "dma_mask": 0xFFFFFFFF}


@scene("A", "bounced", "error", where="x86_64")
def never_synced(stage: Stage, bad: bool) -> Evidence:
    """Bounced and mapped for 120 ms with 100 allowed, and not synced, or synced."""
    stage.thresholds["bounced.stale_ms"] = 100
    fd = stage.export()
    attachment = stage.driver.attach(fd, stage.platform(LOW))
    m = stage.driver.map(attachment)
    if not bad:
        stage.driver.cpu_begin(fd)
        stage.driver.cpu_end(fd)
    time.sleep(0.12)
    stage.driver.unmap(m.nr)
    return {"synced": False, "skip_cpu_sync": False}


@scene("A", "late-tighter-attach", "info")
def tighter_late(stage: Stage, bad: bool) -> Evidence:
    """A device that declares 32 KiB a segment joins one that declares 64, after or before a map."""
    first, second = stage.platform(max_seg=65536), stage.platform(max_seg=32768)
    fd = stage.export()
    one = stage.driver.attach(fd, first)
    if not bad:
        stage.driver.attach(fd, second)
    stage.driver.map(one)
    if bad:
        stage.driver.attach(fd, second)
    return {"tighter": "segment size", "map": None, "max_segment_size": 32768}


@scene("A", "late-tighter-attach", "info")
def as_tight(stage: Stage, bad: bool) -> Evidence:
    """The newcomer declares a byte less than the first device, or the same."""
    first = stage.platform(max_seg=65536)
    second = stage.platform(max_seg=65535 if bad else 65536)
    fd = stage.export()
    stage.driver.map(stage.driver.attach(fd, first))
    stage.driver.attach(fd, second)
    return {"tighter": "segment size", "max_segment_size": 65535}


@scene("A", "late-tighter-attach", "info")
def default_is_no_limit(stage: Stage, bad: bool) -> Evidence:
    """A PCI device with the bus's 64 KiB and 4G-1 joins: declared nothing, told nothing."""
    fd = stage.export()
    stage.driver.map(stage.driver.attach(fd, stage.platform(64)))
    stage.driver.attach(fd, stage.edu[0])
    stage.driver.attach(fd, stage.platform(64, flags=F.NO_PARMS))
    if bad:
        stage.driver.attach(fd, stage.platform(64, boundary=0xFFFF))
    return {"tighter": "segment boundary"}


@scene("A", "late-tighter-attach", "warning", where="x86_64")
def late_and_bounced(stage: Stage, bad: bool) -> Evidence:
    """A device of 32 bits joins after the first map of high pages; low ones do not bounce."""
    fd = stage.export(flags=0 if bad else F.DMA32)
    stage.driver.map(stage.driver.attach(fd, stage.platform(64)))
    stage.driver.map(stage.driver.attach(fd, stage.platform(LOW)))
    return {"tighter": "address limit", "map": "bounced", "address_limit": 0xFFFFFFFF}


@scene("A", "union-unsatisfiable", "warning")
def a_page_too_much(stage: Stage, bad: bool) -> Evidence:
    """One device takes 64 KiB a segment, another 4 segments; 256 KiB fit, a page more does not."""
    narrow, few = stage.platform(max_seg=65536), stage.platform(max_seg=1 << 20)
    stage.constraints = f'[[device]]\nname = "{stage.name(few)}"\nmax_segment_count = 4\n'
    fd = stage.export(65 if bad else 64, run_pages=1)
    stage.driver.attach(fd, narrow)
    stage.driver.attach(fd, few)
    return {
        "capacity": 262144,
        "size": 65 * PAGE,
        "max_segment_size": 65536,
        "segment_size_of": stage.name(narrow),
        "max_segment_count": 4,
        "count_of": stage.name(few),
        "attached": 2,
    }


def mixed(stage: Stage, bad: bool, first: int, second: int) -> Evidence:
    """`second`, which is coherent, maps while `first`, which is not, has the buffer mapped; only
    in the near miss the CPU syncs."""
    fd = stage.export()
    deaf, sharp = stage.driver.attach(fd, first), stage.driver.attach(fd, second)
    m = stage.driver.map(deaf)
    stage.driver.unmap(stage.driver.map(sharp).nr)
    if not bad:
        stage.driver.cpu_begin(fd)
        stage.driver.cpu_end(fd)
    stage.driver.unmap(m.nr)
    return {"size": 16 * PAGE, "synced": False}


@scene("A", "coherency-mix", "warning", where="aarch64")
def mixed_maps(stage: Stage, bad: bool) -> Evidence:
    """A coherent device maps while a non-coherent one has it mapped; nobody syncs, or both do."""
    return mixed(stage, bad, stage.platform(), stage.platform(flags=F.COHERENT))


@scene("A", "coherency-mix", "info", where="aarch64")
def mixed_attach(stage: Stage, bad: bool) -> Evidence:
    """Devices of both kinds are attached, or of one."""
    fd = stage.export()
    stage.driver.attach(fd, stage.platform())
    stage.driver.attach(fd, stage.platform(flags=F.COHERENT if bad else 0))
    return {"coherent": True}


@scene("A", "coherency-mix", "warning", where="x86_64")
def mixed_by_configuration(stage: Stage, bad: bool) -> Evidence:
    """As on arm64, with one device configured to be non-coherent."""
    first, second = stage.platform(), stage.platform()
    stage.constraints = f'[[device]]\nname = "{stage.name(first)}"\ncoherent = false\n'
    return mixed(stage, bad, first, second)


def vivid_takes(stage: Stage, bad: bool) -> int:
    """Offer a low buffer, in pages or in one run, to vivid with dma-contig. Returns its size."""
    import vivid

    # Once a guest: stacks of a module that is gone have no names.
    nodes = uapi.v4l2_devices("vivid") or vivid.load(contiguous=True)
    with uapi.open_fd(nodes[0]) as node:
        size = vivid.page_up(vivid.image_size(node))
        pages = size // PAGE
        fd = stage.export(pages, 1 if bad else 0, F.DMA32, shape=Shape.HONEST)
        vivid.request(node, 1, uapi.V4L2_DMABUF)
        if bad:
            assert stage.refused(lambda: vivid.queue(node, 0, fd, size)) == errno.EFAULT
            stage.log("contiguous chunk is too small", "contiguous mapping is too small")
        else:
            vivid.queue(node, 0, fd, size)
            stage.kernel.append("VIDIOC_QBUF returned 0")
        vivid.request(node, 0, uapi.V4L2_DMABUF)
        os.close(fd)
    return size


@scene("A", "not-contiguous", "error", where="x86_64")
def vivid_wants_one_run(stage: Stage, bad: bool) -> Evidence:
    """vb2-dma-contig without an IOMMU, known by its call stack; it refuses pages."""
    return {"size_needed": vivid_takes(stage, bad), "source": "inferred"}


@scene("A", "union-unsatisfiable", "warning", where="x86_64")
def vivid_and_pages(stage: Stage, bad: bool) -> Evidence:
    """The same, as the union sees it: one run wanted, pages given, no IOMMU."""
    return {"size": vivid_takes(stage, bad), "max_segment_count": 1, "translated": False}


@scene("A", "map-refused", "error", where="x86_64")
def map_taken_back(stage: Stage, bad: bool) -> Evidence:
    """The same, as a refusal by the importer."""
    return {"size": vivid_takes(stage, bad), "step": "importer", "errno": None}
