#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-gpu, a device behind the IOMMU, exports dumb buffers; vgem imports them.

vgem maps what it imports up to 6.16; from 6.18 on it only attaches.
"""

from __future__ import annotations

import argparse
import sys

import prime
from report import Account


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=10)
    args = p.parse_args()
    account = Account("virtio_gpu")
    cards = prime.cards(account)
    for _ in range(args.rounds):
        prime.export_and_import(account, "virtio_gpu", cards, ["vgem"])
    if len(cards) == 2 and account.refused:
        account.surprise("vgem refused a virtio-gpu buffer")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
