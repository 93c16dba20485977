#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults some time after the unmap, at both levels: the driver's log says when each was.

For each delay a new buffer is mapped for an edu device, unmapped, and read at its dead address when
the delay is over; once at level 1, and once in a private domain the device is switched to.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

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
