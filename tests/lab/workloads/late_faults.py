#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults some time after the unmap, at both levels: the driver's log says when each was.

For each delay a new buffer is mapped for an edu device, unmapped, and read at its dead address when
the delay is over; once at level 1, and once in a private domain the device is switched to.

Before that, lines are printed as other IOMMUs' drivers print faults, which this machine has not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import lab
import uapi
from faults import FaultLog
from lab import Kind, Lab, Source
from report import Account

SIZE = 16 * uapi.PAGE
VA = 0x4000_0000
DELAYS = [0.0, 0.05, 1.0, 9.5]
PAUSE = 20
"""Tenths of a second after a fault, in each of which a buffer comes and goes: what a trace tells
before the fault, and what after it, says how soon it told. IOMMU drivers tell of few faults in a
time, too."""


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


class Faults:
    """One edu device; every address is used once."""

    def __init__(self, driver: Lab, account: Account) -> None:
        self.lab, self.account = driver, account
        self.device = driver.edu()[0]
        self.kernel = FaultLog()
        self.number = 0

    def read(self, addr: int, delay: float, what: str) -> None:
        time.sleep(delay)
        self.kernel.lines()
        self.lab.edu_read(self.device, addr, 4)
        self.account.did(what) if self.kernel.wait() else self.account.surprise(f"none: {what}")
        for _ in range(PAUSE):
            os.close(self.lab.export(uapi.PAGE))
            time.sleep(0.1)

    def mapped(self) -> tuple[int, int, lab.Mapping]:
        # Of a size of its own: an IOVA is not given out again at once to another size.
        self.number += 1
        fd = self.lab.export(SIZE + self.number * uapi.PAGE)
        attachment = self.lab.attach(fd, self.device)
        return fd, attachment, self.lab.map(attachment)

    def level1(self, delay: float) -> None:
        fd, attachment, m = self.mapped()
        self.lab.unmap(m.nr)
        self.read(m.dma_addr, delay, "fault after a level-1 unmap")
        self.lab.detach(attachment)
        os.close(fd)

    def level2(self, delay: float) -> None:
        fd, attachment, m = self.mapped()
        context = self.lab.context(Kind.DOMAIN, self.device)
        where = VA + self.number * (1 << 20)
        size = self.lab.level2_map(context, m.nr, where, Source.PAGES)
        self.lab.context_attach(context)
        self.lab.level2_unmap(context, where, size)
        self.read(where, delay, "fault after a level-2 unmap")
        self.lab.context_detach(context)
        self.lab.context_free(context)
        self.lab.unmap(m.nr)
        self.lab.detach(attachment)
        os.close(fd)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--logs", help="write the driver's logs here at the end: .log, .faults")
    args = p.parse_args()
    account = Account("late_faults")
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        print_faults()
        faults = Faults(driver, account)
        for delay in DELAYS:
            faults.level1(delay)
            faults.level2(delay)
    if args.logs:
        account.facts["log_lines"] = lab.copy_log(f"{args.logs}.log")
        account.facts["faults"] = lab.copy_faults(f"{args.logs}.faults")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
