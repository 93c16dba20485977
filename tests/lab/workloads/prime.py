# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock DRM drivers as importers: PRIME imports, counted, undone."""

from __future__ import annotations

import os

import uapi
from report import Account, modprobe

CARDS = ("vgem", "virtio_gpu")


def cards(account: Account) -> dict[str, int]:
    """Open cards by driver; those not there are reported absent."""
    for module in ("vgem", "virtio_pci", "virtio_gpu"):
        modprobe(module)
    found = {}
    for driver in CARDS:
        fd = uapi.drm_open(driver)
        if fd is None:
            account.missing(f"{driver} card")
        else:
            found[driver] = fd
    return found


def import_once(account: Account, source: str, card: str, card_fd: int, fd: int) -> bool:
    """Imports and drops one buffer; a refusal is counted, not a surprise. True if it worked."""
    what = f"import {source} into {card}"
    try:
        handle = uapi.prime_import(card_fd, fd)
    except OSError as e:
        account.refusal(what, e)
        return False
    account.did(what)
    if source != card:  # a card gets its own buffer back under the handle it knows
        uapi.gem_close(card_fd, handle)
        account.did("close handle")
    return True


def dumb(account: Account, card: str, card_fd: int, pages: int = 256) -> tuple[uapi.DrmDumb, int]:
    """A dumb buffer of that card and the fd of its dma-buf."""
    buffer = uapi.DrmDumb(card_fd, width=uapi.PAGE // 4, height=pages)
    account.did(f"create dumb {card}")
    fd = buffer.export()
    account.did(f"export {card}")
    return buffer, fd


def export_and_import(
    account: Account, exporter: str, open_cards: dict[str, int], importers: list[str]
) -> None:
    """One dumb buffer of a card, CPU-synced, imported into the others, released."""
    if exporter not in open_cards:
        return
    buffer, fd = dumb(account, exporter, open_cards[exporter])
    uapi.touch(fd, 1)
    account.did("cpu access")
    for card in importers:
        if card in open_cards:
            import_once(account, exporter, card, open_cards[card], fd)
    os.close(fd)
    buffer.close()
    account.did(f"release {exporter}")
