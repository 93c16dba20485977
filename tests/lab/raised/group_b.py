# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes of group B: two levels and contexts, with private IOMMU domains of the edu device."""

from __future__ import annotations

import contextlib
import os
import time

from lab import Kind, Source
from scene import PAGE, Evidence, F, Lab, Stage, scene

VA = 0x4000_0000
SIZE = 16 * PAGE


class Two:
    """A buffer mapped on the edu device, and a private domain of it."""

    def __init__(self, stage: Stage, flags: int = 0, driver: Lab | None = None) -> None:
        self.driver = driver or stage.driver
        self.device = stage.edu[0]
        self.fd = self.driver.export(SIZE, run_pages=2, flags=flags)
        self.attachment = self.driver.attach(self.fd, self.device, flags & F.DYNAMIC)
        self.map = self.driver.map(self.attachment)
        self.context = 0

    def domain(self, flags: int = 0) -> Two:
        """The device goes there once and back, unmapped: whose domain it is must be known."""
        self.driver.unmap(self.map.nr)
        self.context = self.driver.context(Kind.DOMAIN, self.device, flags)
        self.driver.context_attach(self.context)
        self.driver.context_detach(self.context)
        self.map = self.driver.map(self.attachment)
        return self

    def level2(self, source: int = Source.DMA, va: int = VA) -> Two:
        self.driver.level2_map(self.context, self.map.nr, va, source)
        return self

    def unmap(self) -> None:
        self.driver.unmap(self.map.nr)

    def release(self) -> None:
        self.driver.detach(self.attachment)
        os.close(self.fd)


@scene("B", "level2-map", "info")
def one_range(stage: Stage, bad: bool) -> Evidence:
    """A buffer mapped in a private domain; or the domain is only made."""
    two = Two(stage).domain()
    if bad:
        two.level2()
    return {"address": VA, "size": SIZE, "source": "dma-address", "ranges": 1}


@scene("B", "nested", "info")
def fed_from_dma_addresses(stage: Stage, bad: bool) -> Evidence:
    """Level 2 is fed from DMA addresses; or from pages."""
    Two(stage).domain().level2(Source.DMA if bad else Source.PAGES)
    return {"bytes": SIZE}


@scene("B", "level1-bypassed", "info")
def fed_from_pages(stage: Stage, bad: bool) -> Evidence:
    """Level 2 is fed from pages; or from DMA addresses."""
    Two(stage).domain().level2(Source.PAGES if bad else Source.DMA)
    return {"bytes": SIZE, "source": "pages"}


@scene("B", "stale-level1", "error")
def level1_ends_first(stage: Stage, bad: bool) -> Evidence:
    """Level 1 ends 60 ms before level 2; or after it."""
    two = Two(stage).domain().level2()
    if bad:
        two.unmap()
        time.sleep(0.06)
    stage.driver.level2_unmap(two.context, VA, SIZE)
    if not bad:
        two.unmap()
    return {"address": VA, "size": SIZE}


@scene("B", "domain-switched-while-mapped", "error")
def switched(stage: Stage, bad: bool) -> Evidence:
    """The device goes to a private domain with a mapping, or without."""
    two = Two(stage).domain()
    if not bad:
        two.unmap()
    stage.driver.context_attach(two.context)
    stage.driver.context_detach(two.context)
    return {"mappings": 1, "bytes": SIZE, "dma_address": two.map.dma_addr}


@scene("B", "unmap-elsewhere", "error")
def unmapped_while_switched(stage: Stage, bad: bool) -> Evidence:
    """Unmapped while the device is in a private domain; or back in its own."""
    two = Two(stage).domain()
    stage.driver.context_attach(two.context)
    if bad:
        two.unmap()
    stage.driver.context_detach(two.context)
    if not bad:
        two.unmap()
    return {"dma_address": two.map.dma_addr}


@scene("B", "unmap-elsewhere", "error", where="x86_64")
def nothing_to_unmap(stage: Stage, bad: bool) -> Evidence:
    """A private domain has nothing at the address; or all of it."""
    two = Two(stage).domain().level2()
    at = VA + (SIZE if bad else 0)
    stage.driver.level2_unmap(two.context, at, SIZE, F.FORCE)
    return {"at": at, "asked": SIZE, "unmapped": 0}


@scene("B", "mapped-twice", "warning")
def one_attachment_twice(stage: Stage, bad: bool) -> Evidence:
    """One attachment is mapped again, with or without an unmap between."""
    two = Two(stage)
    if not bad:
        two.unmap()
    again = stage.driver.map(two.attachment)
    stage.driver.unmap(again.nr)
    return {"live": 2, "dma_address": again.dma_addr}


@scene("B", "mapped-twice", "warning")
def one_range_over_itself(stage: Stage, bad: bool) -> Evidence:
    """A range is mapped again where it is, or beside it. VT-d up to 6.12 lets it pass with a
    warning, arm's and newer page tables refuse."""
    two = Two(stage).domain().level2()
    if not bad:
        two.level2(va=VA + SIZE)
        return {}
    with contextlib.suppress(OSError):
        stage.driver.level2_map(two.context, two.map.nr, VA, Source.DMA, flags=F.FORCE)
    return {"address": VA, "size": SIZE}


@scene("B", "level2-outlives-buffer", "error")
def released_under_level2(stage: Stage, bad: bool) -> Evidence:
    """The buffer is released with, or without, a range in a domain."""
    two = Two(stage).domain().level2()
    if not bad:
        stage.driver.level2_unmap(two.context, VA, SIZE)
    two.unmap()
    two.release()
    time.sleep(0.05)
    return {"ranges": 1, "bytes": SIZE, "address": VA}


@scene("B", "iova-reused-under-level2", "error")
def given_out_again(stage: Stage, bad: bool) -> Evidence:
    """The next buffer gets the IOVA of the last one, which level 2 targets; or targets no more."""
    two = Two(stage).domain().level2()
    if not bad:
        stage.driver.level2_unmap(two.context, VA, SIZE)
    two.unmap()
    first = two.map.dma_addr
    for _ in range(64):  # lazy flushing gives it out again when the queue was emptied
        if Two(stage).map.dma_addr == first:
            break
        time.sleep(0.02)
    return {"dma_address": first, "address": VA}


@scene("B", "partial-unmap", "warning", where="x86_64")
def over_a_hole(stage: Stage, bad: bool) -> Evidence:
    """An unmap stops at a hole; or ends before it."""
    two = Two(stage).domain().level2()
    stage.driver.level2_unmap(two.context, VA + 8 * PAGE, 4 * PAGE)
    asked = SIZE if bad else 8 * PAGE
    stage.driver.level2_unmap(two.context, VA, asked, F.FORCE)
    return {"asked": SIZE, "at": VA}  # VT-d goes on behind the hole, 7.2 does not


@scene("B", "revoke-not-honoured", "warning")
def keeps_its_mapping(stage: Stage, bad: bool) -> Evidence:
    """A dynamic importer keeps its mapping 0.3 s after the move; or gives it up."""
    stage.thresholds = {"revoke-not-honoured.grace_ms": 200}
    fd = stage.driver.export(SIZE, run_pages=2, flags=F.DYNAMIC)
    ignore = F.IGNORE_MOVE if bad else 0
    attachment = stage.driver.attach(fd, stage.edu[0], F.DYNAMIC | ignore)
    stage.driver.map(attachment)
    stage.driver.move(fd)
    time.sleep(0.3)
    os.close(fd)
    return {"size": SIZE, "still_mapped": True}


@scene("B", "moved-without-notice", "error")
def moved_behind_their_backs(stage: Stage, bad: bool) -> Evidence:
    """New pages while a mapping lives, and nobody told; or the pages stay."""
    fd = stage.driver.export(SIZE, run_pages=2, flags=F.DYNAMIC)
    first = stage.driver.attach(fd, stage.edu[0], F.DYNAMIC)
    second = stage.driver.attach(fd, stage.edu[0], F.DYNAMIC)
    old = stage.driver.map(first)
    stage.driver.move(fd, F.NO_NOTIFY | (F.NEW_PAGES if bad else 0))
    new = stage.driver.map(second)
    os.close(fd)
    return {"old_dma_address": old.dma_addr, "new_dma_address": new.dma_addr}


@scene("B", "context-leak", "warning")
def left_behind(stage: Stage, bad: bool) -> Evidence:
    """A process leaves a context with a range; or an empty one."""

    def what(driver: Lab) -> None:
        fd = driver.export(SIZE, run_pages=2)
        attachment = driver.attach(fd, stage.edu[0], F.LEAK)
        m = driver.map(attachment)
        context = driver.context(Kind.DOMAIN, stage.edu[0], F.LEAK)
        driver.level2_map(context, m.nr, VA)
        if not bad:
            driver.level2_unmap(context, VA, SIZE)

    stage.child(what)
    return {"ranges": 1, "bytes": SIZE, "address": VA}


@scene("B", "fault-attributed", "error")
def after_the_unmap(stage: Stage, bad: bool) -> Evidence:
    """The device reads where a mapping was; or where it is."""
    two = Two(stage)
    if bad:
        two.unmap()
    stage.driver.edu_read(stage.edu[0], two.map.dma_addr + PAGE, 4)
    if bad:
        stage.log("fault addr", "F_TRANSLATION", "event 0x10")
    time.sleep(0.05)
    who = os.getpid()
    return {"address": two.map.dma_addr + PAGE, "offset": PAGE, "level": 1, "unmapped_by": who}


@scene("B", "fault-attributed", "error")
def in_a_private_domain(stage: Stage, bad: bool) -> Evidence:
    """The device reads in its private domain where a range was; or where it is."""
    two = Two(stage).domain().level2(Source.PAGES)
    two.driver.context_attach(two.context)
    if bad:
        two.driver.level2_unmap(two.context, VA + PAGE * 4, PAGE * 2)
    two.driver.edu_read(two.device, VA + PAGE * 4, 4)
    if bad:
        stage.log("fault addr", "F_TRANSLATION", "event 0x10")
    time.sleep(0.05)
    two.driver.context_detach(two.context)
    return {"address": VA + PAGE * 4, "offset": PAGE * 4, "level": 2, "source": "pages"}
