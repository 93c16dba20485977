#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way the driver's exporter can be bad, each mapped once by a device that minds.

Checks that the tables are as bad as promised, and that refusals carry the errno asked for.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time

import lab
import uapi
from lab import F, Fail, Lab, Mapping, Shape
from report import Account

SIZE = 64 * uapi.PAGE


class Tour:
    def __init__(self, driver: Lab, account: Account) -> None:
        self.lab, self.account = driver, account
        self.edu = driver.edu()[0]
        self.plain = driver.platform(mask_bits=40, max_seg=65536, boundary=0xFFFFF)

    def mapped(self, shape: Shape, device: int, run_pages: int = 8) -> Mapping:
        fd = self.lab.export(SIZE, run_pages=run_pages, shape=shape)
        attachment = self.lab.attach(fd, device)
        m = self.lab.map(attachment)
        self.lab.unmap(m.nr)
        self.lab.detach(attachment)
        os.close(fd)
        return m

    def check(self, what: str, good: bool, m: object = "") -> None:
        self.account.did(what) if good else self.account.surprise(f"not so: {what} {m}")

    def shapes(self) -> None:
        m = self.mapped(Shape.LONG, self.plain)
        self.check("one long entry", m.nents == 1 and m.dma_len == SIZE, m)
        m = self.mapped(Shape.BOUNDARY, self.plain)
        end = m.dma_addr + m.dma_len - 1
        self.check("boundary crossed", m.dma_addr >> 20 != end >> 20, m)
        self.mapped(Shape.BEYOND_MASK, self.plain)
        last = [line for line in lab.log() if line["op"] == "map"][-1]
        self.check("beyond the mask", last["result"] == 0, last)
        m = self.mapped(Shape.MISALIGNED, self.plain)
        self.check("misaligned", m.dma_addr % uapi.PAGE == 512, m)
        m = self.mapped(Shape.SHORT, self.edu)
        self.check("short", m.dma_sum == SIZE - uapi.PAGE, m)
        m = self.mapped(Shape.PAGELESS, self.edu)
        self.check("page-less", m.orig_nents == 0 and m.dma_sum == SIZE, m)
        m = self.mapped(Shape.MANY_RUNS, self.edu)
        self.check("many runs", m.nents == SIZE // uapi.PAGE, m)
        m = self.mapped(Shape.UNTRANSLATED, self.edu)
        self.check("untranslated", m.nents == 8 and m.dma_sum == SIZE, m)

    def refusal(self, what: str, step: Fail, flags: int = 0) -> None:
        """With fail_count 1: refused once, then accepted."""
        fd = self.lab.export(
            SIZE, flags=flags, fail_step=step, fail_error=errno.ENOSPC, fail_count=1
        )
        importer = F.DYNAMIC if flags & F.DYNAMIC else 0
        expected = errno.ENOMEM if flags & F.FAIL_NULL else errno.ENOSPC
        for attempt in range(2):
            attachment = 0
            try:
                attachment = self.lab.attach(fd, self.edu, importer)
                if step == Fail.PIN:
                    self.lab.pin(attachment)
                    self.lab.unpin(attachment)
                self.lab.unmap(self.lab.map(attachment).nr)
            except OSError as e:
                self.account.refusal(what, e)
                self.check(f"{what}: errno", e.errno == expected and attempt == 0, e)
            else:
                self.check(f"{what}: second attempt", attempt == 1)
            if attachment:
                self.lab.detach(attachment)
        os.close(fd)

    def one_run(self) -> None:
        """The importer that wants one run undoes the map and refuses by itself."""
        fd = self.lab.export(SIZE, run_pages=8)
        attachment = self.lab.attach(fd, self.plain)
        try:
            self.lab.map(attachment, flags=F.ONE_RUN)
            self.account.surprise("scattered buffer passed as one run")
        except OSError as e:
            self.account.refusal("one run wanted", e)
        self.lab.detach(attachment)
        os.close(fd)
        fd = self.lab.export(SIZE, run_pages=0)
        attachment = self.lab.attach(fd, self.plain)
        m = self.lab.map(attachment, flags=F.ONE_RUN)
        self.check("one run given", m.nents == 1, m)
        self.lab.unmap(m.nr)
        self.lab.detach(attachment)
        os.close(fd)

    def slow(self) -> None:
        for what, flags in (("map", 0), ("attach", F.DELAY_ATTACH), ("release", F.DELAY_RELEASE)):
            fd = self.lab.export(SIZE, delay_ms=120, flags=flags)
            attachment = self.lab.attach(fd, self.edu)
            self.lab.unmap(self.lab.map(attachment).nr)
            self.lab.detach(attachment)
            os.close(fd)
            time.sleep(0.05)
            line = [line for line in lab.log() if line["op"] == what][-1]
            self.check(f"slow {what}", line["ts_ns"] - line["start_ns"] >= 100_000_000, line)

    def leaks(self) -> None:
        """A file closed with a leak leaves it; RESET takes it away."""
        with Lab() as careless:
            fd = careless.export(SIZE, flags=F.DYNAMIC)
            attachment = careless.attach(fd, self.edu, F.DYNAMIC | F.LEAK)
            careless.pin(attachment)
            careless.map(attachment)
            os.close(fd)
        before = lab.counts(lab.log())
        self.check("leaks stay", before["detach"] + 1 == before["attach"], before)
        self.lab.reset()
        after = lab.counts(lab.log())
        self.check("leaks go at reset", after["detach"] == after["attach"], after)
        for a, b in (("map", "unmap"), ("pin", "unpin"), ("export", "release")):
            self.check(f"{a} and {b} balance", after[a] == after[b], after)

    def moved(self) -> None:
        """Moved with and without notice; the importer that ignores the notice keeps its mapping."""
        fd = self.lab.export(SIZE, flags=F.DYNAMIC)
        polite = self.lab.attach(fd, self.edu, F.DYNAMIC)
        deaf = self.lab.attach(fd, self.edu, F.DYNAMIC | F.IGNORE_MOVE)
        gone = self.lab.map(polite)
        stays = self.lab.map(deaf)
        self.lab.move(fd, F.NEW_PAGES | F.NO_NOTIFY)
        self.lab.move(fd, F.NEW_PAGES)
        try:
            self.lab.unmap(gone.nr)
            self.account.surprise("a mapping outlived its move")
        except OSError as e:
            self.account.refusal("unmap after the move", e)
        self.lab.unmap(stays.nr)
        self.lab.detach(polite)
        self.lab.detach(deaf)
        os.close(fd)
        self.account.did("moved", 2)

    def forced(self) -> None:
        """Detached while mapped: refused, and done when forced."""
        fd = self.lab.export(SIZE)
        attachment = self.lab.attach(fd, self.edu)
        self.lab.map(attachment)
        try:
            self.lab.detach(attachment)
            self.account.surprise("detached while mapped")
        except OSError as e:
            self.account.refusal("detach while mapped", e)
        os.close(fd)
        self.lab.detach(attachment, F.FORCE)
        self.account.did("forced detach")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--log", help="write the driver's log here at the end")
    args = p.parse_args()
    account = Account("bad_exporter")
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        tour = Tour(driver, account)
        tour.shapes()
        tour.refusal("attach refused", Fail.ATTACH)
        tour.refusal("map refused", Fail.MAP)
        tour.refusal("map refused by NULL", Fail.MAP, F.FAIL_NULL)
        tour.refusal("pin refused", Fail.PIN, F.DYNAMIC)
        tour.one_run()
        tour.slow()
        tour.moved()
        tour.leaks()  # resets: the tour's platform device is gone
        tour.forced()
    lab.settle(account, args.log)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
