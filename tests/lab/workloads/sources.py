# SPDX-License-Identifier: GPL-2.0-or-later
"""Where buffers come from on this kernel: one function a stock exporter, by name.

`available()` says which of them work here, found by trying.
"""

from __future__ import annotations

from collections.abc import Callable

import uapi
from report import Account, modprobe


def heap(size: int) -> int:
    """The system heap (Debian amd64, 6.12 and later)."""
    return uapi.heap_alloc(size, "system")


def udmabuf(size: int) -> int:
    """udmabuf over a memfd (Debian, 6.12 and later)."""
    return uapi.udmabuf_alloc(size)


def vgem(size: int) -> int:
    """A vgem dumb buffer; the card and the GEM handle are closed, the dma-buf stays."""
    card = uapi.drm_open("vgem")
    if card is None:
        raise FileNotFoundError("no vgem card")
    with uapi.closing(card):
        dumb = uapi.DrmDumb(card, width=uapi.PAGE // 4, height=max(1, size // uapi.PAGE))
        fd = dumb.export()
        dumb.close()
        return fd


def udmabuf_swapped(size: int) -> int:
    """udmabuf in two physical runs at least."""
    return uapi.udmabuf_alloc(size, swapped=True)


STOCK: dict[str, Callable[[int], int]] = {"heap": heap, "udmabuf": udmabuf, "vgem": vgem}


def available(account: Account) -> dict[str, Callable[[int], int]]:
    """The stock exporters that work on this kernel; the others are reported absent."""
    for module in ("udmabuf", "vgem", "system_heap"):
        modprobe(module)
    found = {}
    for name, make in STOCK.items():
        try:
            fd = make(uapi.PAGE)
        except OSError:
            account.missing(name)
            continue
        with uapi.closing(fd):
            found[name] = make
    return found
