#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random legal operations on both levels, and the driver's own table at random moments.

Buffers are exported, attached to edu devices behind the IOMMU and to a platform device without
one, mapped, and mapped again in private IOMMU domains and GPU VMs: whole or in part, by DMA address
or by page; ranges are unmapped whole, in part and several at once; devices are cleared, switched to
a private domain and back. What is legal is what a driver without a bug does: level 1 does not end
below level 2, a device with level-1 mappings is not switched, no address is mapped twice. A device
attaches to a buffer once, as drivers do.

With --tables FILE, the driver's debugfs table is written there at each moment, a JSON object a
line: {"mark": its number, "rows": ...}; the log has a mark of that number (and so its time).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab
import uapi
from lab import F, Kind, Lab, Source
from report import Account

MAX_BUFFERS, MAX_ATTACHMENTS, MAX_CONTEXTS = 10, 16, 8
SIZES = [1, 2, 4, 16, 64, 256]  # pages
VA, VA_PAGES = 0x4000_0000, 4096
MOMENTS = 10

# How often an operation is tried; names of Play methods.
WEIGHTS = {
    "export": 4,
    "close": 3,
    "attach": 8,
    "detach": 4,
    "map": 20,
    "unmap": 8,
    "create": 2,
    "free": 1,
    "put": 50,
    "take": 26,
    "switch": 1,
    "switch_back": 4,
}


@dataclass
class Buffer:
    fd: int
    pages: int


@dataclass
class Attachment:
    nr: int
    buffer: Buffer
    device: int
    map: int = 0


@dataclass
class Context:
    nr: int
    kind: Kind
    device: int
    pages: dict[int, int] = field(default_factory=dict)
    """Page of the address space -> the map it belongs to."""


class Play:
    """The state, and what can be done to it. An operation returns False when there is nothing to
    do it on."""

    def __init__(self, driver: Lab, seed: int, account: Account) -> None:
        self.lab, self.account = driver, account
        self.random = random.Random(seed)
        self.edu = driver.edu()
        self.platform = driver.platform()
        self.has_vm = lab.load_vm()
        self.buffers: list[Buffer] = []
        self.attachments: list[Attachment] = []
        self.contexts: list[Context] = []
        self.switched: dict[int, Context] = {}
        """Device -> the context it was switched to."""
        self.users: Counter[int] = Counter()
        """Map -> pages of contexts on top of it."""
        self.flags = [F(0), F.DYNAMIC]
        if not self.has_vm:
            account.missing("drm_gpuvm")
        try:
            os.close(driver.export(uapi.PAGE, flags=F.CACHE_SGT))
            self.flags.append(F.CACHE_SGT)
        except OSError:
            account.missing("cache_sgt_mapping")

    def did(self, what: str) -> bool:
        self.account.did(what)
        return True

    # Buffers and level 1

    def export(self) -> bool:
        if len(self.buffers) >= MAX_BUFFERS:
            return False
        pages = self.random.choice(SIZES)
        flags = self.random.choice(self.flags) | F.DMA32
        run = self.random.choice([1, 2, 4, 16])
        fd = self.lab.export(pages * uapi.PAGE, run_pages=run, flags=flags)
        self.buffers.append(Buffer(fd, pages))
        return self.did("export")

    def close(self) -> bool:
        if len(self.buffers) < 4:
            return False
        buffer = self.random.choice(self.buffers)
        self.buffers.remove(buffer)
        os.close(buffer.fd)
        return self.did("close")

    def attach(self) -> bool:
        devices = [d for d in (*self.edu, self.platform) if d not in self.switched]
        taken = {(id(a.buffer), a.device) for a in self.attachments}
        free = [(b, d) for b in self.buffers for d in devices if (id(b), d) not in taken]
        if not free or len(self.attachments) >= MAX_ATTACHMENTS:
            return False
        buffer, device = self.random.choice(free)
        dynamic = F.DYNAMIC if self.random.random() < 0.3 else F(0)
        nr = self.lab.attach(buffer.fd, device, dynamic)
        self.attachments.append(Attachment(nr, buffer, device))
        return self.did("attach")

    def detach(self) -> bool:
        idle = [a for a in self.attachments if not a.map]
        return bool(idle) and self.detach_one(self.random.choice(idle))

    def detach_one(self, attachment: Attachment) -> bool:
        self.lab.detach(attachment.nr)
        self.attachments.remove(attachment)
        return self.did("detach")

    def map(self) -> bool:
        free = [a for a in self.attachments if not a.map]
        if not free:
            return False
        attachment = self.random.choice(free)
        attachment.map = self.lab.map(attachment.nr).nr
        return self.did("map")

    def unmap(self) -> bool:
        idle = [a for a in self.attachments if a.map and not self.users[a.map]]
        return bool(idle) and self.unmap_one(self.random.choice(idle))

    def unmap_one(self, attachment: Attachment) -> bool:
        self.lab.unmap(attachment.map)
        attachment.map = 0
        return self.did("unmap")

    # Contexts and level 2

    def create(self) -> bool:
        """A GPU VM; or, as a driver does that begins, a device is cleared and gets its domains,
        each attached once."""
        if len(self.contexts) >= MAX_CONTEXTS:
            return False
        kind = self.random.choice([Kind.DOMAIN, Kind.GPUVM] if self.has_vm else [Kind.DOMAIN])
        device = self.random.choice([d for d in self.edu if d not in self.switched])
        if kind == Kind.GPUVM:
            self.new(kind, self.platform if self.random.random() < 0.2 else device)
            return True
        self.clear(device)
        for _ in range(self.random.randint(1, 3)):
            context = self.new(kind, device)
            self.lab.context_attach(context.nr)
            self.lab.context_detach(context.nr)
        return True

    def new(self, kind: Kind, device: int) -> Context:
        context = Context(self.lab.context(kind, device), kind, device)
        self.contexts.append(context)
        self.did("context")
        return context

    def free(self) -> bool:
        free = [one for one in self.contexts if one not in self.switched.values()]
        return bool(free) and self.free_one(self.random.choice(free))

    def free_one(self, context: Context) -> bool:
        self.lab.context_free(context.nr)
        self.users.subtract(context.pages.values())
        self.contexts.remove(context)
        return self.did("context freed")

    def sources(self, context: Context) -> list[tuple[Attachment, Source]]:
        """What a context can be filled from. A switched device has no level 1 of its own then:
        pages are all there is, and another device's mapping keeps them."""
        if context.device in self.switched:
            mapped = [a for a in self.attachments if a.map and a.device == self.platform]
            return [(a, Source.PAGES) for a in mapped]
        mine = [a for a in self.attachments if a.map and a.device == context.device]
        kinds = [Source.DMA] if context.kind == Kind.GPUVM else list(Source)
        return [(a, kind) for a in mine for kind in kinds]

    def put(self) -> bool:
        context = self.random.choice(self.contexts) if self.contexts else None
        choices = self.sources(context) if context else []
        if not context or not choices:
            return False
        attachment, source = self.random.choice(choices)
        offset, count = 0, attachment.buffer.pages
        if self.random.random() < 0.6:
            offset = self.random.randrange(count)
            count = self.random.randint(1, count - offset)
        page = self.place(context, count)
        if page is None:
            return False
        self.lab.level2_map(
            context.nr, attachment.map, VA + page * uapi.PAGE, source,
            offset * uapi.PAGE, count * uapi.PAGE,
        )  # fmt: skip
        context.pages |= dict.fromkeys(range(page, page + count), attachment.map)
        self.users[attachment.map] += count
        return self.did(f"level 2 by {'page' if source else 'DMA address'}, {context.kind.name}")

    def place(self, context: Context, count: int) -> int | None:
        """Where so many pages are free: behind what is mapped, as often as anywhere."""
        for _ in range(8):
            page = self.random.randrange(VA_PAGES)
            if context.pages and self.random.random() < 0.5:
                page = self.random.choice(list(context.pages)) + 1
            if not any(one in context.pages for one in range(page, page + count)):
                return page
        return None

    def take(self) -> bool:
        full = [one for one in self.contexts if one.pages]
        if not full:
            return False
        context = self.random.choice(full)
        first = last = self.random.choice(list(context.pages))
        limit = self.random.choice([1, 4, 16, 1 << 20])
        while last + 1 in context.pages and last - first + 1 < limit:
            last += 1
        if limit > 16:
            while first - 1 in context.pages:
                first -= 1
        size = (last - first + 1) * uapi.PAGE
        done = self.lab.level2_unmap(context.nr, VA + first * uapi.PAGE, size)
        if done != size:
            self.account.surprise(f"level-2 unmap of {size} bytes did {done}")
        for page in range(first, last + 1):
            self.users[context.pages.pop(page)] -= 1
        return self.did("level 2 unmapped")

    # Devices between domains

    def switch(self) -> bool:
        """Clears a device and switches it to a private domain."""
        free = [d for d in self.edu if d not in self.switched]
        if len(free) < 2:
            return False
        device = self.random.choice(free)
        self.clear(device)
        context = self.new(Kind.DOMAIN, device)
        self.lab.context_attach(context.nr)
        self.switched[device] = context
        return self.did("device switched")

    def clear(self, device: int) -> None:
        """Undoes everything on a device, level 2 first."""
        for context in [one for one in self.contexts if one.device == device]:
            self.free_one(context)
        for attachment in [a for a in self.attachments if a.device == device]:
            if attachment.map:
                self.unmap_one(attachment)
            self.detach_one(attachment)

    def switch_back(self) -> bool:
        if not self.switched:
            return False
        device = self.random.choice(list(self.switched))
        context = self.switched.pop(device)
        self.lab.context_detach(context.nr)
        self.free_one(context)
        return self.did("device switched back")


def table() -> list[dict[str, Any]]:
    """The driver's own."""
    return [json.loads(line) for line in (lab.DEBUGFS / "table").read_text().splitlines()]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--operations", type=int, default=5000)
    p.add_argument("--log", help="write the driver's log here at the end")
    p.add_argument("--tables", default="/dev/null", help="write the driver's tables here")
    args = p.parse_args()
    account = Account("random_levels")
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    with Lab() as driver, Path(args.tables).open("w") as tables:
        driver.reset()
        driver.clear_log()
        play = Play(driver, args.seed, account)

        def look(number: int) -> None:
            driver.mark(number)
            tables.write(json.dumps({"mark": number, "rows": table()}) + "\n")

        # The first operations have little to show.
        moments = play.random.sample(range(args.operations // 20, args.operations), MOMENTS)
        while (done := account.done.total()) < args.operations and not account.unexpected:
            name = play.random.choices(names, weights)[0]
            try:
                getattr(play, name)()
            except OSError as e:
                account.surprise(f"{name}: {e}")
            for moment in [one for one in moments if one <= done]:
                moments.remove(moment)
                look(MOMENTS - len(moments))
        look(MOMENTS + 1)
        driver.reset()
        look(MOMENTS + 2)
        for buffer in play.buffers:
            os.close(buffer.fd)
    account.facts = {"seed": args.seed, "pid": os.getpid()}
    failed = [line for line in lab.log() if line["result"]]
    if failed:
        account.surprise(f"{len(failed)} lines of the log failed, first: {failed[0]}")
    if args.log:
        account.facts["log_lines"] = lab.copy_log(args.log)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
