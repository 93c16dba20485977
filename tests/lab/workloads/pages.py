#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Buffers of plain pages: allocated, written by the CPU, imported into vgem and virtio-gpu."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

import prime
import sources
import uapi
from report import Account, modprobe

MODULES = {"heap": "system_heap", "udmabuf": "udmabuf"}


def round_trip(
    account: Account, name: str, make: Callable[[int], int], cards: dict[str, int], size: int
) -> None:
    """One buffer: named, written, synced, imported into every card, released."""
    fd = make(size)
    account.did(f"alloc {name}")
    uapi.set_name(fd, f"lab-{name}")
    uapi.touch(fd, 1)
    account.did("cpu access")
    for card, card_fd in cards.items():
        prime.import_once(account, name, card, card_fd, fd)
    os.close(fd)
    account.did(f"release {name}")


def workload(name: str, make: Callable[[int], int], rounds: int, size: int) -> Account:
    """rounds round trips, where the kernel has this exporter."""
    account = Account(name)
    cards = prime.cards(account)
    try:
        os.close(make(size))
    except OSError as e:
        account.missing(f"{name} ({e.strerror})")
        return account
    account.did(f"alloc {name}")
    account.did(f"release {name}")
    for _ in range(rounds):
        round_trip(account, name, make, cards, size)
    if "vgem" in cards and not account.done[f"import {name} into vgem"]:
        account.surprise(f"vgem imported no buffer of {name}")
    return account


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("exporter", choices=MODULES, nargs="?", default="heap")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--kib", type=int, default=1024, help="size of a buffer")
    args = p.parse_args()
    modprobe(MODULES[args.exporter])
    make = sources.STOCK[args.exporter]
    return workload(args.exporter, make, args.rounds, args.kib << 10).finish()


if __name__ == "__main__":
    sys.exit(main())
