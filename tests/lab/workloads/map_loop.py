#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Map/unmap pairs of one buffer on one edu device, inside the kernel, for measurements.

Under QEMU's -icount the nanoseconds are guest instructions (docs/lab.md). With --edu more than
once, a line is printed for each device and then a line of stdin waited for: a pair costs what the
buffer's place in memory lets the IOMMU do, so what is compared must map the same buffer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import sources
import uapi
from lab import Lab
from report import Account


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--pairs", type=int, default=1000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument(
        "--settle", type=float, default=0, metavar="S",
        help="wait after one pair: a tracer has work of its own when it meets an attachment",
    )  # fmt: skip
    p.add_argument("--mib", type=int, default=4)
    p.add_argument("--exporter", choices=["heap", "udmabuf", "driver"], default="heap")
    p.add_argument("--edu", type=int, action="append", metavar="N", help="the Nth edu device")
    p.add_argument("--run-pages", type=int, default=256, help="driver: pages a physical run")
    args = p.parse_args()
    account = Account("map_loop")
    size = args.mib << 20
    stock = sources.available(account)
    exporter = args.exporter
    if exporter != "driver" and exporter not in stock:
        exporter = "driver"
    with Lab() as driver:
        if exporter == "driver":
            fd = driver.export(size, run_pages=args.run_pages)
        else:
            fd = stock[exporter](size)
        with uapi.closing(fd):
            for edu in args.edu or [0]:
                attachment = driver.attach(fd, driver.edu()[edu])
                rounds = []
                if args.settle:
                    driver.map_loop(attachment, 1)
                    time.sleep(args.settle)
                for _ in range(args.rounds):
                    pairs, ns = driver.map_loop(attachment, args.pairs)
                    account.did("map/unmap pair", pairs)
                    rounds.append(round(ns / pairs, 1))
                driver.detach(attachment)
                if args.edu and len(args.edu) > 1:
                    print(json.dumps(rounds), flush=True)
                    sys.stdin.readline()
    account.facts = {"exporter": exporter, "bytes": size, "ns_per_pair": rounds}
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
