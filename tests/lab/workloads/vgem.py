#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vgem exports dumb buffers; vgem itself (the same device: no attachment) and virtio-gpu import.

virtio-gpu without virgl attaches and maps, then refuses with ENODEV: counted as refused.
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
    account = Account("vgem")
    cards = prime.cards(account)
    for _ in range(args.rounds):
        prime.export_and_import(account, "vgem", cards, ["vgem", "virtio_gpu"])
    if "vgem" in cards and not account.done["import vgem into vgem"]:
        account.surprise("vgem did not take back its own buffer")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
