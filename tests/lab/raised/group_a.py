# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes of group A, constraints: tables and limits. Refusals and sharing are in group_a_shared."""

from __future__ import annotations

import group_a_shared  # noqa: F401 (its scenes are on the list)
from lab import Dir, Kind, Shape, Source
from scene import PAGE, Evidence, F, Stage, lab, scene

VA = 0x4000_0000
LAST_BYTE = '[[device]]\nname = "{name}"\naddress_limit = {limit}\n'


def honest_or(shape: Shape, bad: bool) -> Shape:
    return shape if bad else Shape.HONEST


@scene("A", "address-beyond-limit", "error")
def beyond_the_mask(stage: Stage, bad: bool) -> Evidence:
    """The last entry starts one byte above the dma_mask."""
    m = stage.mapped(stage.platform(40), shape=honest_or(Shape.BEYOND_MASK, bad))
    mask = (1 << 40) - 1
    return {
        "last_address": mask + m.dma_len,
        "limit": mask,
        "beyond_bytes": m.dma_len,
        "source": "declared",
    }


@scene("A", "address-beyond-limit", "error")
def one_byte_beyond(stage: Stage, bad: bool) -> Evidence:
    """An honest table, and a configured limit at its last byte or one byte below."""
    device = stage.platform()
    m = stage.mapped(device)
    last = m.dma_addr + m.dma_len - 1
    # address_limit is the first address beyond.
    limit = last if bad else last + 1
    stage.constraints = LAST_BYTE.format(name=stage.name(device), limit=limit)
    return {"last_address": last, "limit": last - 1, "beyond_bytes": 1, "source": "configured"}


@scene("A", "segment-too-long", "warning")
def one_byte_too_long(stage: Stage, bad: bool) -> Evidence:
    """An honest run of 64 KiB for a device that declares 64 KiB, or a byte less."""
    most = 16 * PAGE - (1 if bad else 0)
    stage.mapped(stage.platform(max_seg=most))
    return {"longest_entry": 16 * PAGE, "max_segment_size": most, "source": "declared"}


@scene("A", "segment-too-long", "info")
def longer_than_default(stage: Stage, bad: bool) -> Evidence:
    """One entry of 68 KiB, or 64 KiB, for a PCI device that declares nothing."""
    pages = 17 if bad else 16
    m = stage.mapped(stage.edu[0], pages, run_pages=1, shape=Shape.LONG)
    return {"longest_entry": m.dma_len, "max_segment_size": 65536, "source": "default"}


@scene("A", "boundary-crossed", "error")
def crosses(stage: Stage, bad: bool) -> Evidence:
    """A run of 2 MiB, or of 1 MiB, for a device with a boundary of 1 MiB; runs are aligned."""
    pages = 512 if bad else 256
    device = stage.platform(boundary=0xFFFFF, max_seg=1 << 22)
    m = stage.mapped(device, pages, run_pages=pages)
    return {"segment_boundary_mask": 0xFFFFF, "source": "declared", "longest_entry": m.dma_len}


@scene("A", "boundary-crossed", "error")
def forged_crossing(stage: Stage, bad: bool) -> Evidence:
    """The exporter puts the first entry across the boundary."""
    device = stage.platform(boundary=0xFFFFF)
    m = stage.mapped(device, shape=honest_or(Shape.BOUNDARY, bad))
    return {"segment_boundary_mask": 0xFFFFF, "lowest_address": m.dma_addr}


@scene("A", "misaligned", "warning")
def starts_late(stage: Stage, bad: bool) -> Evidence:
    """The first entry starts 512 bytes into its page."""
    stage.mapped(stage.platform(), shape=honest_or(Shape.MISALIGNED, bad))
    return {"address_bits": 0x200, "length_bits": 0xE00, "align_mask": 4095}


@scene("A", "misaligned", "warning")
def one_bit_short(stage: Stage, bad: bool) -> Evidence:
    """An honest table, and a configured alignment that it has, or twice that."""
    device = stage.platform()
    m = stage.mapped(device, 2)
    has = m.dma_addr & -m.dma_addr
    align = 2 * has if bad else has
    stage.constraints = f'[[device]]\nname = "{stage.name(device)}"\nalignment = {align}\n'
    return {"address_bits": has, "length_bits": 0, "align_mask": align - 1}


@scene("A", "size-mismatch", "error")
def short_table(stage: Stage, bad: bool) -> Evidence:
    """The last page is missing."""
    m = stage.mapped(stage.edu[0], shape=honest_or(Shape.SHORT, bad))
    return {"missing": PAGE, "total": m.dma_sum, "size": 16 * PAGE}


@scene("A", "too-many-segments", "warning")
def seventeen_runs(stage: Stage, bad: bool) -> Evidence:
    """17 runs, or 16, for a device configured to take 16 segments; mapped for 60 ms."""
    stage.constraints = '[[device]]\ndriver = "dmabuf_lab"\nmax_segment_count = 16\n'
    runs = 17 if bad else 16
    fd = stage.export(runs, shape=Shape.MANY_RUNS)
    attachment = stage.driver.attach(fd, stage.platform())
    m = stage.driver.map(attachment)
    stage.kernel.append(f"map returned 0, {m.nents} entries")
    return {"runs": 17, "max_segment_count": 16, "source": "configured", "undone": False}


@scene("A", "too-many-segments", "error")
def seventeen_taken_back(stage: Stage, bad: bool) -> Evidence:
    """The same, and the importer unmaps at once."""
    stage.constraints = '[[device]]\ndriver = "dmabuf_lab"\nmax_segment_count = 16\n'
    stage.mapped(stage.platform(), 17 if bad else 16, shape=Shape.MANY_RUNS)
    return {"runs": 17, "max_segment_count": 16, "undone": True}


@scene("A", "not-contiguous", "error")
def two_runs(stage: Stage, bad: bool) -> Evidence:
    """Two pages in two runs, or one, for a device configured to take one; it refuses two."""
    stage.constraints = '[[device]]\ndriver = "dmabuf_lab"\nmax_segment_count = 1\n'
    fd = stage.export(2, shape=honest_or(Shape.MANY_RUNS, bad))
    attachment = stage.driver.attach(fd, stage.platform())
    if bad:
        stage.refused(lambda: stage.driver.map(attachment, flags=F.ONE_RUN))
    else:
        stage.driver.map(attachment, flags=F.ONE_RUN)
    return {"longest_run": PAGE, "first_run": PAGE, "runs": 2, "size_needed": 2 * PAGE}


@scene("A", "untranslated-address", "error")
def physical_addresses(stage: Stage, bad: bool) -> Evidence:
    """The exporter hands out physical addresses to a device behind the IOMMU, which faults."""
    edu = stage.edu[1]
    stage.mapped(edu)
    # Low pages: edu has 32 bits, and must be able to ask for them.
    fd = stage.export(flags=F.DMA32, shape=honest_or(Shape.UNTRANSLATED, bad))
    attachment = stage.driver.attach(fd, edu)
    m = stage.driver.map(attachment)
    stage.driver.edu_read(edu, m.dma_addr, 4)
    if bad:
        stage.log("DMAR: [DMA Read", "arm-smmu-v3")
    stage.driver.unmap(m.nr)
    return {
        "lowest_address": m.dma_addr,
        "what": "physical",
        "iommu_bytes": 0,
        "size": 16 * PAGE,
    }


@scene("A", "untranslated-address", "error")
def registers(stage: Stage, bad: bool) -> Evidence:
    """The exporter hands out the address of the device's own BAR; or it has no pages either, but
    asked the DMA API."""
    edu = stage.edu[1]
    stage.mapped(edu)
    m = stage.mapped(edu, shape=Shape.BAR if bad else Shape.PAGELESS)
    bar = f"BAR 0 of {stage.name(edu)}"
    return {"lowest_address": m.dma_addr, "what": bar, "iommu_bytes": 0, "size": 16 * PAGE}


@scene("A", "pages-expected", "error")
def level2_from_pages(stage: Stage, bad: bool) -> Evidence:
    """An importer that fills level 2 from pages, configured so, gets a table without, or with."""
    device = stage.edu[0]
    stage.constraints = f'[[device]]\nname = "{stage.name(device)}"\npages = true\n'
    fd = stage.export(shape=honest_or(Shape.PAGELESS, bad))
    m = stage.driver.map(stage.driver.attach(fd, device))
    context = stage.driver.context(Kind.DOMAIN, device)
    if bad:
        # iommu_map_sg() of no entries maps nothing, and says so.
        stage.refused(lambda: stage.driver.level2_map(context, m.nr, VA, Source.PAGES))
    else:
        assert stage.driver.level2_map(context, m.nr, VA, Source.PAGES) == 16 * PAGE
    return {"entries": 1, "orig_nents": 0, "size": 16 * PAGE, "source": "configured"}


@scene("A", "undeclared-limits", "info")
def no_parms(stage: Stage, bad: bool) -> Evidence:
    """A device without dma_parms."""
    stage.mapped(stage.platform(flags=F.NO_PARMS if bad else 0))
    return {"has_dma_parms": False, "max_segment_size": 65536}


@scene("A", "direction-conflict", "warning")
def two_directions(stage: Stage, bad: bool) -> Evidence:
    """One attachment mapped to the device, then from it, or to it again."""
    attachment = stage.driver.attach(stage.export(), stage.platform())
    stage.driver.unmap(stage.driver.map(attachment, Dir.TO_DEVICE).nr)
    again = Dir.FROM_DEVICE if bad else Dir.TO_DEVICE
    stage.driver.unmap(stage.driver.map(attachment, again).nr)
    stage.kernel.append("both maps returned 0")
    return {"direction": "from-device", "first_direction": "to-device", "result": 0}


__all__ = ["lab"]
