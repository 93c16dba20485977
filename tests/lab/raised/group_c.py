# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes of group C, lifetime: what is left behind, by a process that exits or one that lives."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial

from lab import Fail
from scene import PAGE, Evidence, F, Lab, Stage, scene


@scene("C", "attachment-leak", "warning")
def left_by_exit(stage: Stage, bad: bool) -> Evidence:
    """A process exits with an attachment that its driver keeps, or detaches first."""

    def leaks(driver: Lab) -> None:
        fd = driver.export(16 * PAGE)
        attachment = driver.attach(fd, stage.edu[0], F.LEAK)
        if not bad:
            driver.detach(attachment)

    stage.child(leaks)
    return {"size": 16 * PAGE, "grace_ms": 250}


@scene("C", "attachment-leak", "warning")
def idle_attachments(stage: Stage, bad: bool) -> Evidence:
    """256 idle attachments of one buffer to one device, or 255."""
    fd, device = stage.export(1), stage.platform()
    for _ in range(256 if bad else 255):
        stage.driver.attach(fd, device)
    return {"idle_attachments": 256, "idle_count": 256}


@scene("C", "mapping-leak", "warning")
def mapped_by_the_dead(stage: Stage, bad: bool) -> Evidence:
    """A process exits with a mapping that its driver keeps, or unmaps first."""

    def leaks(driver: Lab) -> None:
        fd = driver.export(16 * PAGE)
        m = driver.map(driver.attach(fd, stage.edu[0], F.LEAK))
        if not bad:
            driver.unmap(m.nr)

    stage.child(leaks)
    return {"size": 16 * PAGE}


@scene("C", "mapping-leak", "warning")
def mappings_pile_up(stage: Stage, bad: bool) -> Evidence:
    """64 live mappings of one attachment, or 63."""
    attachment = stage.driver.attach(stage.export(1), stage.platform())
    for _ in range(64 if bad else 63):
        stage.driver.map(attachment)
    return {"live_mappings": 64, "live_count": 64, "size": PAGE}


@scene("C", "pin-leak", "warning")
def pinned_at_detach(stage: Stage, bad: bool) -> Evidence:
    """Detached with a pin, or unpinned first."""
    fd = stage.export(flags=F.DYNAMIC)
    attachment = stage.driver.attach(fd, stage.edu[0], F.DYNAMIC)
    stage.driver.pin(attachment)
    if not bad:
        stage.driver.unpin(attachment)
    stage.driver.detach(attachment, F.FORCE)
    return {"pins": 1}


@scene("C", "pin-leak", "warning")
def pinned_by_the_dead(stage: Stage, bad: bool) -> Evidence:
    """A process exits with a pin that its driver keeps, or unpins first."""

    def leaks(driver: Lab) -> None:
        fd = driver.export(16 * PAGE, flags=F.DYNAMIC)
        attachment = driver.attach(fd, stage.edu[0], F.DYNAMIC | F.LEAK)
        driver.pin(attachment)
        if not bad:
            driver.unpin(attachment)

    stage.child(leaks)
    return {}


@scene("C", "detach-while-mapped", "error")
def detached_mapped(stage: Stage, bad: bool) -> Evidence:
    """Detached with a mapping, or unmapped first."""
    attachment = stage.driver.attach(stage.export(), stage.platform())
    m = stage.driver.map(attachment)
    if not bad:
        stage.driver.unmap(m.nr)
    stage.driver.detach(attachment, F.FORCE)
    return {"size": 16 * PAGE, "users": 1, "address": m.dma_addr}


@scene("C", "cpu-access-unbalanced", "warning")
def end_missing(stage: Stage, bad: bool) -> Evidence:
    """Two begins of CPU access and one end, or two."""
    fd = stage.export()
    for ends in (True, not bad):
        stage.driver.cpu_begin(fd)
        if ends:
            stage.driver.cpu_end(fd)
    os.close(fd)
    return {"begins_less_ends": 1, "cpu_accesses": 3, "size": 16 * PAGE}


@scene("C", "exporter-exhausted", "warning")
def no_memory(stage: Stage, bad: bool) -> Evidence:
    """The exporter's map returns -ENOMEM, or -ENOSPC."""
    fd = stage.export(fail_step=Fail.MAP, fail_error=errno.ENOMEM if bad else errno.ENOSPC)
    attachment = stage.driver.attach(fd, stage.platform())
    stage.refused(lambda: stage.driver.map(attachment))
    return {"size": 16 * PAGE, "held_bytes": 16 * PAGE, "held_buffers": 1}


@scene("C", "held-by-dead-process", "warning")
def kept_by_a_driver(stage: Stage, bad: bool) -> Evidence:
    """A process exits with an attachment that its driver keeps; 200 ms later nobody holds the
    buffer, or this process does, by a descriptor it was given."""
    stage.thresholds["held-by-dead-process.hold_ms"] = 200
    read, write = os.pipe()
    os.set_inheritable(write, True)

    def leaks(driver: Lab) -> None:
        fd = driver.export(16 * PAGE)
        driver.attach(fd, stage.edu[0], F.LEAK)
        os.write(write, f"/proc/{os.getpid()}/fd/{fd}".encode())
        if not bad:
            time.sleep(0.5)  # until the other has opened it

    held = -1
    if bad:
        stage.child(leaks)
    else:
        held = stage.share(leaks, read)
    stage.look()
    if held >= 0:
        os.close(held)
    os.close(read)
    os.close(write)
    return {"size": 16 * PAGE, "attachments": 1, "hold_ms": 200}


@scene("C", "slow-release", "warning")
def release_50_ms(stage: Stage, bad: bool) -> Evidence:
    """Twice 50 ms in release, or 49 and a bit."""

    def ready(delay_ms: int) -> Callable[[], None]:
        os.close(stage.export(delay_ms=delay_ms, flags=F.DELAY_RELEASE))
        return partial(os.close, stage.export(delay_ms=delay_ms, flags=F.DELAY_RELEASE))

    stage.takes(50, ready, bad)
    return {"size": 16 * PAGE, "slow_ms": 50}


@scene("C", "fd-growth", "warning")
def more_and_more(stage: Stage, bad: bool) -> Evidence:
    """Over five looks a process holds 64 buffers more, or 63."""
    fds: list[int] = [stage.export(1)]
    stage.look()
    for _ in range(4):
        fds += [stage.export(1) for _ in range(16)]
        if len(fds) > 64 and not bad:
            os.close(fds.pop())
        stage.look()
    for fd in fds:
        os.close(fd)
    return {"grow_count": 64}


@scene("C", "importer-cache-holds", "warning")
def cache_of_64(stage: Stage, bad: bool) -> Evidence:
    """64 buffers, or 63, attached by a driver and closed by the process, idle for 200 ms."""
    stage.thresholds["importer-cache-holds.idle_ms"] = 200
    device = stage.platform()
    for _ in range(64 if bad else 63):
        fd = stage.export(1)
        stage.driver.attach(fd, device)
        os.close(fd)
    time.sleep(0.25)
    stage.look()
    return {"kept_buffers": 64, "kept_bytes": 64 * PAGE, "held_count": 64, "idle_ms": 200}
