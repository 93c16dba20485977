# SPDX-License-Identifier: GPL-2.0-or-later
"""Buffers of plain pages (heap, udmabuf): allocated, synced, imported into the DRM cards."""

from __future__ import annotations

import os
from collections.abc import Callable

import prime
import uapi
from report import Account


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
