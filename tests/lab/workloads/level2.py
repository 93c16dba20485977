#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two levels: private IOMMU domains and GPU VMs fed from mapped buffers, with real DMA.

Checks itself: bytes written by the CPU arrive where the device carries them, through level 1,
through a private domain fed from pages, and back in the default domain; dead addresses fault.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys

import lab
import uapi
from faults import FaultLog
from lab import Kind, Lab, Source
from report import Account

SIZE = 16 * uapi.PAGE
VA = 0x4000_0000


class Scenario:
    """One buffer mapped on one edu device; the steps, and what they must show."""

    def __init__(self, driver: Lab, account: Account) -> None:
        self.lab, self.account = driver, account
        self.device = driver.edu()[0]
        self.faults = FaultLog()

    def expect(self, what: str, good: bool) -> None:
        self.account.did(what) if good else self.account.surprise(f"not so: {what}")

    def fails(self, what: str, call: object, *args: int) -> None:
        try:
            call(*args)
        except OSError as e:
            self.account.refusal(what, e)
        else:
            self.account.surprise(f"passed: {what}")

    def carries(self, fd: int, addr: int) -> bool:
        """CPU writes page 0, the device carries it to page 1, the CPU reads it there."""
        pattern = os.urandom(uapi.PAGE)
        with mmap.mmap(fd, SIZE) as view:
            uapi.sync_begin(fd)
            view[: uapi.PAGE] = pattern
            uapi.sync_end(fd)
            self.lab.edu_read(self.device, addr, 2048)
            self.lab.edu_write(self.device, addr + uapi.PAGE, 2048)
            uapi.sync_begin(fd)
            same = view[uapi.PAGE : uapi.PAGE + 2048] == pattern[:2048]
            uapi.sync_end(fd)
        return same

    def faulted(self, addr: int) -> bool:
        """Four bytes are enough: SMMUv3 reports each word, ten of them in 5 s."""
        self.faults.lines()
        self.lab.edu_read(self.device, addr, 4)
        return bool(self.faults.wait())

    def domain(self) -> None:
        fd = self.lab.export(SIZE, run_pages=2)
        attachment = self.lab.attach(fd, self.device)
        m = self.lab.map(attachment)
        self.expect("DMA through level 1", self.carries(fd, m.dma_addr))
        context = self.lab.context(Kind.DOMAIN, self.device)
        self.lab.level2_map(context, m.nr, VA, Source.PAGES)
        nested = VA + (1 << 28)
        self.lab.level2_map(context, m.nr, nested, Source.DMA)
        self.lab.level2_map(context, m.nr, VA + (2 << 28), Source.DMA, 4 * uapi.PAGE, uapi.PAGE)
        self.fails("same range twice", self.lab.level2_map, context, m.nr, VA, Source.PAGES)
        self.lab.context_attach(context)
        self.expect("DMA through the private domain", self.carries(fd, VA))
        self.expect("level-1 address faults in the private domain", self.faulted(m.dma_addr))
        self.fails("DMA through a nested range", self.lab.edu_read, self.device, nested, 2048)
        done = self.lab.level2_unmap(context, VA + 4 * uapi.PAGE, 2 * uapi.PAGE)
        self.expect("part unmapped", done == 2 * uapi.PAGE)
        self.expect("the part faults", self.faulted(VA + 4 * uapi.PAGE))
        self.lab.context_detach(context)
        self.expect("DMA through level 1 again", self.carries(fd, m.dma_addr))
        self.lab.unmap(m.nr)
        self.lab.detach(attachment)
        self.lab.context_free(context)
        os.close(fd)
        self.expect("a dead address faults", self.faulted(m.dma_addr))

    def gpuvm(self) -> None:
        if not lab.load_vm():
            self.account.missing("drm_gpuvm")
            return
        fd = self.lab.export(SIZE)
        attachment = self.lab.attach(fd, self.device)
        m = self.lab.map(attachment)
        contexts = [self.lab.context(Kind.GPUVM, self.device) for _ in range(2)]
        for context in contexts:
            self.lab.level2_map(context, m.nr, VA)
        self.lab.level2_map(contexts[0], m.nr, VA + SIZE, Source.PAGES, uapi.PAGE, uapi.PAGE)
        self.fails("GPU address bound twice", self.lab.level2_map, contexts[0], m.nr, VA)
        done = self.lab.level2_unmap(contexts[0], VA + uapi.PAGE, uapi.PAGE)
        self.expect("hole in a GPU range", done == uapi.PAGE)
        done = self.lab.level2_unmap(contexts[1], VA, SIZE)
        self.expect("GPU range unmapped", done == SIZE)
        self.lab.unmap(m.nr)
        self.lab.detach(attachment)
        os.close(fd)
        for context in contexts:
            self.lab.context_free(context)
        self.account.did("GPU VMs freed", 2)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--log", help="write the driver's log here at the end")
    args = p.parse_args()
    account = Account("level2")
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        scenario = Scenario(driver, account)
        scenario.domain()
        scenario.gpuvm()
    lab.settle(account, args.log)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
