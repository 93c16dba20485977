#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Scattered buffers offered to vivid with the dma-contig allocator, which needs one run.

Heap and udmabuf buffers larger than any run must be refused; a buffer of the other vivid, which
is contiguous, must be taken. vivid has a 32-bit DMA mask: pages above 4 GiB are bounced, into
slots that may happen to be contiguous, or fail for size (EINVAL, not EFAULT). Only a guest
with all its memory below 4 GiB shows the contiguity failure alone, and only there is a buffer that
passes unexpected. --driver adds a scattered low buffer of the test driver, sure anywhere.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sources
import uapi
import vivid
from lab import F, Lab
from report import Account


def memory_above_4g() -> bool:
    """Whether any RAM lies above 4 GiB."""
    for line in Path("/proc/iomem").read_text().splitlines():
        span, _, what = line.partition(" : ")
        if what == "System RAM" and int(span.split("-")[1], 16) >= 1 << 32:
            return True
    return False


def scattered(account: Account, node: Path, size: int, low: bool) -> None:
    stock = sources.available(account)
    for name, make in (("heap", sources.heap), ("udmabuf", sources.udmabuf_swapped)):
        if name not in stock:
            continue
        with uapi.closing(make(size)) as fd:
            account.did(f"alloc {name}")
            if vivid.offer(account, node, name, fd) and low:
                account.surprise(f"{name} buffer of {size} bytes passed as contiguous")


def scattered_driver(account: Account, node: Path, size: int) -> None:
    with Lab() as driver, uapi.closing(driver.export(size, run_pages=1, flags=F.DMA32)) as fd:
        account.did("alloc driver")
        if vivid.offer(account, node, "driver", fd):
            account.surprise(f"driver buffer of {size} bytes passed as contiguous")


def contiguous(account: Account, exporter: Path, importer: Path) -> None:
    with uapi.open_fd(exporter) as fd:
        vivid.request(fd, 1, uapi.V4L2_MMAP)
        with uapi.closing(vivid.export(fd, 0)) as dmabuf:
            account.did("export vivid")
            if not vivid.offer(account, importer, "vivid", dmabuf):
                account.surprise("a contiguous buffer was refused")
        vivid.request(fd, 0, uapi.V4L2_MMAP)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--driver", action="store_true", help="offer a test driver's buffer too")
    args = p.parse_args()
    account = Account("vivid_contig")
    account.facts["memory_above_4g"] = memory_above_4g()
    nodes = vivid.load(contiguous=True)
    if len(nodes) < 2:
        account.missing("vivid")
        return account.finish()
    with uapi.open_fd(nodes[0]) as fd:
        size = vivid.page_up(vivid.image_size(fd)) + (4 << 20)
    for _ in range(args.rounds):
        scattered(account, nodes[0], size, low=not account.facts["memory_above_4g"])
        if args.driver:
            scattered_driver(account, nodes[0], size)
        contiguous(account, nodes[1], nodes[0])
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
