#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that preempt other calls in the middle of whatever the processor does for them.

One process maps and unmaps in the kernel all the time (map-loop, of which the log has counts);
real-time processes, each above the one before, wake at odd times and do single calls, which the
log has one by one. All are on one processor, and end when all have done as much as was asked.
Where kernel code is preemptible, a call that wakes finds the probes' programs occupied by the call
it interrupted.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import sys
import time
from collections.abc import Callable

import lab
import uapi
from lab import Lab, Shape
from processes import fork
from report import Account

PAIRS = 20
"""A map-loop: short enough to end when told."""
PAGES = 16
"""Of each buffer, in as many entries: programs are busy for longest where a table is taken."""
NAP_S = (0.0005, 0.004)
ROUNDS = 8
"""Of each real-time process, at least."""
OVER = 0
"""The place in shared memory that says so; the others count a process's rounds."""


def looping(driver: Lab, shared: mmap.mmap, pairs: int) -> None:
    """The one that is preempted: until there were enough pairs, and rounds of all others."""
    fd = driver.export(PAGES * uapi.PAGE, shape=Shape.MANY_RUNS)
    attachment = driver.attach(fd, driver.edu()[0])
    while pairs > 0 or min(shared[1:]) < ROUNDS:
        driver.map_loop(attachment, PAIRS)
        pairs -= PAIRS


def waking(driver: Lab, shared: mmap.mmap, level: int) -> None:
    """One that preempts, until it is over."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10 * level))
    odd = random.Random(level)
    devices = driver.edu()
    while not shared[OVER]:
        fd = driver.export(PAGES * uapi.PAGE, shape=Shape.MANY_RUNS)
        attachment = driver.attach(fd, devices[level % len(devices)])
        for _ in range(20):
            m = driver.map(attachment)
            time.sleep(odd.uniform(*NAP_S))
            driver.unmap(m.nr)
            time.sleep(odd.uniform(*NAP_S))
        driver.detach(attachment)
        time.sleep(odd.uniform(*NAP_S))
        os.close(fd)
        time.sleep(odd.uniform(*NAP_S))
        shared[level] = min(shared[level] + 1, 255)


def on(cpu: int, what: Callable[..., None], *arguments: object) -> None:
    """Do it on one processor, with a file of the driver."""
    os.sched_setaffinity(0, {cpu})
    with Lab() as driver:
        what(driver, *arguments)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--pairs", type=int, default=1500, help="at least, of the one preempted")
    p.add_argument("--levels", type=int, default=3, metavar="N", help="real-time processes")
    p.add_argument("--cpu", type=int, default=(os.cpu_count() or 1) - 1)
    p.add_argument("--log", metavar="FILE", help="copy the driver's log here at the end")
    args = p.parse_args()
    account = Account("preempting")
    lab.load()
    with Lab() as driver:
        driver.clear_log()
    shared = mmap.mmap(-1, 1 + args.levels)
    looper = fork(on, args.cpu, looping, shared, args.pairs)
    levels = range(1, args.levels + 1)
    others = [fork(on, args.cpu, waking, shared, level) for level in levels]
    for pid in (looper, *others):
        if os.waitpid(pid, 0)[1]:
            account.surprise(f"process {pid} failed")
        shared[OVER] = 1
    lines = lab.settle(account, args.log)
    loops = [line for line in lines if line["op"] == "map-loop"]
    account.facts["looper"] = looper
    account.facts["pairs"] = sum(line["count"] for line in loops)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
