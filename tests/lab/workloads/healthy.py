#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock drivers sharing buffers the way they should, in a loop: nothing fails, nothing leaks.

Each round: heap, udmabuf and virtio-gpu buffers into vgem, a vgem buffer back into vgem, a vivid
buffer into the other vivid. What this kernel lacks is left out and named.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import pages
import prime
import sources
import uapi
import vivid
import vivid_contig
from report import Account


def one_round(account: Account, stock: dict, cards: dict[str, int], nodes: list[Path]) -> None:
    for name in ("heap", "udmabuf"):
        if name in stock:
            vgem = {card: fd for card, fd in cards.items() if card == "vgem"}
            pages.round_trip(account, name, stock[name], vgem, 64 * uapi.PAGE)
    prime.export_and_import(account, "virtio_gpu", cards, ["vgem"])
    prime.export_and_import(account, "vgem", cards, ["vgem"])
    if len(nodes) >= 2:
        vivid_contig.contiguous(account, nodes[1], nodes[0])


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--rounds", type=int, help="end after so many rounds instead")
    p.add_argument("--pause", type=float, default=0.05, help="seconds between rounds")
    args = p.parse_args()
    account = Account("healthy")
    stock = sources.available(account)
    cards = prime.cards(account)
    nodes = vivid.load(contiguous=True)
    if len(nodes) < 2:
        account.missing("vivid")
    end = time.monotonic() + args.seconds
    rounds = 0
    while rounds < args.rounds if args.rounds else time.monotonic() < end:
        one_round(account, stock, cards, nodes)
        rounds += 1
        time.sleep(args.pause)
    account.did("round", rounds)
    account.facts = {"pid": os.getpid(), "end_ns": time.monotonic_ns()}
    if account.refused:
        account.surprise(f"refused: {dict(account.refused)}")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
