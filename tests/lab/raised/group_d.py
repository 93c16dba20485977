# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes of group D, cost: rates are counted in whole seconds of the clock, so scenes begin with
one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lab import Mapping, Shape
from scene import PAGE, Evidence, F, Stage, scene


@scene("D", "map-churn", "info")
def maps_in_a_second(stage: Stage, bad: bool) -> Evidence:
    """200 pairs of map and unmap in one second, or 199."""
    attachment = stage.driver.attach(stage.export(1), stage.platform())
    stage.second()
    stage.driver.map_loop(attachment, 200 if bad else 199)
    return {"maps_per_second": 200, "maps": 200, "per_second": 200}


@scene("D", "reimport-per-frame", "info")
def attached_again(stage: Stage, bad: bool) -> Evidence:
    """30 attaches of one buffer to one device, or 29."""
    fd, device = stage.export(1), stage.platform()
    for _ in range(30 if bad else 29):
        stage.driver.detach(stage.driver.attach(fd, device))
    os.close(fd)
    return {"attaches": 30, "limit": 30}


@scene("D", "slow-attach", "info")
def attach_50_ms(stage: Stage, bad: bool) -> Evidence:
    """50 ms in attach, or 49 and a bit."""
    device = stage.platform()

    def ready(delay_ms: int) -> Callable[[], int]:
        fd = stage.export(delay_ms=delay_ms, flags=F.DELAY_ATTACH)
        return lambda: stage.driver.attach(fd, device)

    stage.takes(50, ready, bad)
    return {"slow_ms": 50, "result": 0}


@scene("D", "slow-map", "info")
def map_100_ms(stage: Stage, bad: bool) -> Evidence:
    """100 ms in map, or 99 and a bit."""
    device = stage.platform()

    def ready(delay_ms: int) -> Callable[[], Mapping]:
        attachment = stage.driver.attach(stage.export(delay_ms=delay_ms), device)
        return lambda: stage.driver.map(attachment)

    stage.takes(100, ready, bad)
    return {"size": 16 * PAGE, "slow_ms": 100, "result": 0}


@scene("D", "fragmented", "info")
def sixteen_pages(stage: Stage, bad: bool) -> Evidence:
    """16 entries of a page, or 15."""
    stage.mapped(stage.platform(), 16 if bad else 15, shape=Shape.MANY_RUNS)
    return {"entries": 16, "mean_entry": PAGE, "longest_entry": PAGE, "min_entries": 16}


@scene("D", "fragmented", "info")
def just_below_64_kib(stage: Stage, bad: bool) -> Evidence:
    """16 entries of 64 KiB, one of them without its last page, or with it."""
    shape = Shape.SHORT if bad else Shape.HONEST
    stage.mapped(stage.platform(), 256, run_pages=16, shape=shape)
    return {"entries": 16, "mean_entry": 65536 - PAGE // 16, "longest_entry": 65536}


@scene("D", "not-merged", "info")
def split_at_64_kib(stage: Stage, bad: bool) -> Evidence:
    """A run of 128 KiB, or 64, through the IOMMU, for a device that declares nothing."""
    stage.mapped(stage.edu[0], 32 if bad else 16, run_pages=16)
    return {"entries": 2, "runs": 1, "longest_run": 131072, "max_segment_size": 65536}


@scene("D", "small-iommu-pages", "info")
def a_page_off(stage: Stage, bad: bool) -> Evidence:
    """A run of 4 MiB less a page that starts a page behind a multiple of 4 MiB, or at one."""
    pages, large = 1023, 2 << 20
    fd = stage.export(pages, flags=F.UNALIGNED if bad else 0)
    # No IOMMU: its DMA addresses are physical ones.
    physical = stage.driver.map(stage.driver.attach(fd, stage.platform())).dma_addr
    m = stage.driver.map(stage.driver.attach(fd, stage.edu[0]))
    stage.kernel.append(f"map returned 0, {m.dma_addr:#x}+{m.dma_len} at physical {physical:#x}")
    assert physical % large == (PAGE if bad else 0)
    return {
        "iova": m.dma_addr,
        "physical": physical,
        "size": pages * PAGE,
        "page_used": PAGE,
        "page_possible": large,
    }


@scene("D", "iova-beyond-rcache", "info")
def large_and_often(stage: Stage, bad: bool) -> Evidence:
    """100 maps in one second of 132 KiB, or of 128 KiB, through the IOMMU."""
    attachment = stage.driver.attach(stage.export(33 if bad else 32, run_pages=1), stage.edu[0])
    stage.second()
    stage.driver.map_loop(attachment, 100)
    return {"maps_per_second": 100, "mean_bytes": 33 * PAGE, "per_second": 100}


@scene("D", "iova-beyond-rcache", "info")
def large_less_often(stage: Stage, bad: bool) -> Evidence:
    """132 KiB mapped 100 times in one second, or 99."""
    attachment = stage.driver.attach(stage.export(33, run_pages=1), stage.edu[0])
    stage.second()
    stage.driver.map_loop(attachment, 100 if bad else 99)
    return {"maps_per_second": 100, "mean_bytes": 33 * PAGE, "per_second": 100}


@scene("D", "bounce-cost", "warning", where="x86_64")
def bounced_64_mib(stage: Stage, bad: bool) -> Evidence:
    """4 MiB bounced 16 times in one second by a device of 32 bits, or 15 times."""
    fd = stage.export(1024, run_pages=32)
    attachment = stage.driver.attach(fd, stage.platform(32))
    stage.second()
    stage.driver.map_loop(attachment, 16 if bad else 15)
    return {"bytes_per_second": 64 << 20, "bounces": 16 * 32, "mib_per_second": 64}


@scene("D", "iotlb-sync-storm", "info", where="x86_64")
def strict_unmaps(stage: Stage, bad: bool) -> Evidence:
    """1000 unmaps in one second in a strict domain, or 999."""
    edu = stage.edu[-1]
    kind = Path(f"/sys/bus/pci/devices/{stage.name(edu)}/iommu_group/type").read_text().strip()
    assert kind == "DMA", f"the domain is {kind}: boot with iommu.strict=1"
    attachment = stage.driver.attach(stage.export(1), edu)
    stage.second()
    stage.driver.map_loop(attachment, 1000 if bad else 999)
    return {"unmaps_per_second": 1000, "per_second": 1000}


@scene("D", "repeated-cache-maintenance", "info", where="aarch64")
def needless_maps(stage: Stage, bad: bool) -> Evidence:
    """100 maps of a non-coherent device with nothing to write back, or 99."""
    attachment = stage.driver.attach(stage.export(1), stage.platform())
    stage.driver.map_loop(attachment, 101 if bad else 100)
    return {"needless_maps": 100, "maps": 101, "repeats": 100}


@scene("D", "repeated-cache-maintenance", "info", where="x86_64")
def needless_by_configuration(stage: Stage, bad: bool) -> Evidence:
    """The same with a device configured to be non-coherent."""
    device = stage.platform()
    stage.constraints = f'[[device]]\nname = "{stage.name(device)}"\ncoherent = false\n'
    stage.driver.map_loop(stage.driver.attach(stage.export(1), device), 101 if bad else 100)
    return {"needless_maps": 100, "maps": 101, "repeats": 100}


def synced(stage: Stage, device: int, bad: bool) -> Evidence:
    """30 begins and ends of a buffer of 1 MiB in one second, or 29 and a begin."""
    fd = stage.export(256)
    stage.driver.attach(fd, device)
    stage.second()
    for number in range(30):
        stage.driver.cpu_begin(fd)
        if bad or number < 29:
            stage.driver.cpu_end(fd)
    if not bad:
        time.sleep(1.0)
        stage.driver.cpu_end(fd)
    return {"syncs_per_second": 60, "size": 1 << 20, "per_second": 60}


@scene("D", "whole-buffer-sync", "info", where="aarch64")
def sixty_syncs(stage: Stage, bad: bool) -> Evidence:
    """60 syncs in one second of a non-coherent device's buffer, or 59."""
    return synced(stage, stage.platform(), bad)


@scene("D", "whole-buffer-sync", "info", where="x86_64")
def sixty_by_configuration(stage: Stage, bad: bool) -> Evidence:
    """The same with a device configured to be non-coherent."""
    device = stage.platform()
    stage.constraints = f'[[device]]\nname = "{stage.name(device)}"\ncoherent = false\n'
    return synced(stage, device, bad)
