#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults some time after the unmap, at both levels: the driver's log says when each was.

For each delay a new buffer is mapped for an edu device, unmapped, and read at its dead address when
the delay is over; once at level 1, and once in a private domain the device is switched to. Those
with the longest delay have devices of their own, while the others come and go.

Before that, lines are printed as other IOMMUs' drivers print faults, which this machine has not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lab
import uapi
from faults import FaultLog
from lab import Kind, Lab, Source
from report import Account

SIZE = 16 * uapi.PAGE
VA = 0x4000_0000
DELAYS = (0.0, 0.05, 1.0)
LATE = 9.5
PAUSE = 20
"""Tenths of a second after a fault, in each of which a buffer comes and goes: what a trace tells
before the fault, and what after it, says how soon it told. IOMMU drivers tell of few faults in a
time, too."""
PAUSE_S = PAUSE / 10


PRINTED = (
    "DMAR: [DMA Write] Request device [3a:00.1] PASID ffffffff fault addr 1000 [fault reason 05] "
    "PTE Write access is not set",
    "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:03.0 domain=0x000a address=0x2000 "
    "flags=0x0020]",
    "a_driver_with_a_long_name 0000:0b:00.4: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 "
    "address=0x3000 flags=0x0000]",
    "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_TRANSLATION client: 0000:00:03.0 sid: 0x18 ssid: 0x0 "
    "iova: 0x4000 ipa: 0x0",
    "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0x5000, fsynr=0x11, "
    "cbfrsynra=0x18, cb=5",
    "[   12.345678] DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x6000 "
    "[fault reason 0x06] PTE Read access is not set",
    "arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000001800000010",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000800000000",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000000007000",
    "a_driver 0000:0b:00.4: no fault of an IOMMU, fault addr 0x8000",
)


def print_faults() -> None:
    """In the kernel's log, one call a line."""
    for line in PRINTED:
        with Path("/dev/kmsg").open("w") as log:
            log.write(f"<3>{line}")


class Dead:
    """An address of a device that was unmapped a moment ago, and whatever is to be undone."""

    def __init__(self, device: int, addr: int, what: str, undo: Callable[[], None]) -> None:
        self.device, self.addr, self.what, self.undo = device, addr, what, undo
        self.since = time.monotonic()


class Faults:
    """Edu devices; every address of one is used once."""

    def __init__(self, driver: Lab, account: Account) -> None:
        self.lab, self.account = driver, account
        self.devices = driver.edu()
        self.kernel = FaultLog()
        self.number = 0

    def read(self, dead: Dead, delay: float) -> None:
        """Read there so long after the unmap, and go on for a while."""
        time.sleep(max(0, dead.since + delay - time.monotonic()))
        self.kernel.lines()
        self.lab.edu_read(dead.device, dead.addr, 4)
        told = self.kernel.wait()
        self.account.did(dead.what) if told else self.account.surprise(f"none: {dead.what}")
        for _ in range(PAUSE):
            os.close(self.lab.export(uapi.PAGE))
            time.sleep(0.1)
        dead.undo()

    def mapped(self, device: int) -> tuple[int, int, lab.Mapping]:
        # Of a size of its own: an IOVA is not given out again at once to another size.
        self.number += 1
        fd = self.lab.export(SIZE + self.number * uapi.PAGE)
        attachment = self.lab.attach(fd, device)
        return fd, attachment, self.lab.map(attachment)

    def level1(self, device: int) -> Dead:
        fd, attachment, m = self.mapped(device)
        self.lab.unmap(m.nr)

        def undo() -> None:
            self.lab.detach(attachment)
            os.close(fd)

        return Dead(device, m.dma_addr, "fault after a level-1 unmap", undo)

    def level2(self, device: int) -> Dead:
        fd, attachment, m = self.mapped(device)
        context = self.lab.context(Kind.DOMAIN, device)
        where = VA + self.number * (1 << 20)
        size = self.lab.level2_map(context, m.nr, where, Source.PAGES)
        self.lab.context_attach(context)
        self.lab.level2_unmap(context, where, size)

        def undo() -> None:
            self.lab.context_detach(context)
            self.lab.context_free(context)
            self.lab.unmap(m.nr)
            self.lab.detach(attachment)
            os.close(fd)

        return Dead(device, where, "fault after a level-2 unmap", undo)

    def all(self) -> None:
        """The late ones of both levels, each on a device of its own, and meanwhile the others."""
        one, two, three = self.devices[:3]
        others = [(make, delay) for make in (self.level1, self.level2) for delay in DELAYS]
        waiting = [self.level1(two)]
        self.soon(one, *others.pop(0))
        waiting.append(self.level2(three))
        while others or waiting:
            rest = waiting[0].since + LATE - time.monotonic() if waiting else LATE
            if others and rest > others[0][1] + 2 * PAUSE_S:
                self.soon(one, *others.pop(0))
            else:
                self.read(waiting.pop(0), LATE)

    def soon(self, device: int, make: Callable[[int], Dead], delay: float) -> None:
        """One from beginning to end."""
        self.read(make(device), delay)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--logs", help="write the driver's logs here at the end: .log, .faults")
    args = p.parse_args()
    account = Account("late_faults")
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        print_faults()
        Faults(driver, account).all()
    if args.logs:
        account.facts["log_lines"] = lab.copy_log(f"{args.logs}.log")
        account.facts["faults"] = lab.copy_faults(f"{args.logs}.faults")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
