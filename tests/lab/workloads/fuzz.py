#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Nonsense for the test driver: seeded random requests from several processes, files closed and
processes killed midway. Whatever it answers, the kernel must stay well and the log must balance.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time

import lab
import uapi
from lab import F, Kind, Lab, Op
from processes import fork
from report import Account

# Rare, for what they undo; frequent, for what they make.
WEIGHTS = {
    Op.RESET: 0.05,
    Op.PLATFORM: 0.3,
    Op.PLATFORM_DESTROY: 0.3,
    Op.DETACH: 4,
    Op.CONTEXT_FREE: 3,
    Op.ATTACH: 20,
    Op.MAP: 25,
    Op.L2_MAP: 30,
}
EDGES = [0, 1, 2, 3, 4095, 4096, 4097, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
WIDE = [*EDGES, 1 << 32, 0xFFFF0000, 1 << 38, (1 << 63), (1 << 64) - 4096, (1 << 64) - 1]
EXPECTED = re.compile(r"kernel/dma/|io-pgtable-arm")
WRONG = re.compile(r"BUG|Oops|WARNING|general protection|refcount_t|list_(add|del) corruption")


# Fields by what is plausible in them: below a bound, or a multiple of the page.
BOUNDS = {
    "delay_ms": 3,
    "count": 64,
    "device": 6,
    "direction": 3,
    "source": 2,
    "shape": 9,
    "fail_count": 3,
}
HANDLES = ("attachment", "map", "context")


class Fuzzer:
    """One process: mostly plausible requests on what it made and what others made."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.lab = Lab()
        self.fds: list[int] = []
        self.last = dict.fromkeys(HANDLES, 1)

    def plausible(self, name: str) -> int:
        rng = self.random
        if name == "fail_step":
            return rng.choice([0, 0, 0, 0, 1, 2, 3])
        if name in BOUNDS:
            return rng.randrange(BOUNDS[name])
        if name in HANDLES:
            return max(0, self.last[name] - rng.randrange(8))
        if name == "flags":
            return rng.choice([0, 0, 1 << rng.randrange(16), F.DYNAMIC, F.DYNAMIC])
        if name == "fail_error":  # EINTR: asked again for ever; EBUSY: pin warns
            return rng.choice([errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC])
        if name == "kind":
            return rng.choice([Kind.DOMAIN, Kind.GPUVM])
        if name == "run_pages":
            return rng.choice([0, 1, 2, 8])
        if name == "mask_bits":
            return rng.choice([32, 40, 64])
        if name in ("boundary", "min_align"):
            return rng.choice([0, 0, 0xFFF, 0xFFFF])
        if name == "offset":
            return rng.choice([0, 0, 0, 1]) * uapi.PAGE
        if name == "va":
            return rng.randrange(1, 1 << 14) * 16 * uapi.PAGE
        return rng.choice([0, 0, 1, 4, 16]) * uapi.PAGE

    def fields(self) -> dict[str, int]:
        values = {}
        for name, kind in lab.Req._fields_:
            if name in ("op", "name", "fd"):
                continue
            wild = self.random.random() < 0.02 and name not in ("delay_ms", "count", "fail_error")
            value = self.random.choice(WIDE) if wild else self.plausible(name)
            values[name] = value if kind is lab._U64 else value & 0xFFFFFFFF
        wild = self.random.random() < 0.05 or not self.fds
        values["fd"] = self.random.choice([-1, 0, 99] if wild else self.fds)
        return values

    def learn(self, op: Op, reply: lab.Req) -> None:
        if op == Op.EXPORT:
            self.fds.append(reply.fd)
        for name in HANDLES:
            if op in (Op.ATTACH, Op.MAP, Op.CONTEXT_CREATE):
                self.last[name] = max(self.last[name], getattr(reply, name) & 0xFFFFFF)

    def run(self, requests: int) -> None:
        operations = [op for op in Op if op not in (Op.LOG_CLEAR, Op.EDU_DMA, Op.INFO, Op.MARK)]
        weights = [WEIGHTS.get(op, 10) for op in operations]
        for _ in range(requests):
            op = self.random.choices(operations, weights)[0]
            try:
                self.learn(op, self.lab.call(op, **self.fields()))
            except OSError:
                continue
            if len(self.fds) > 20:
                os.close(self.fds.pop(self.random.randrange(len(self.fds))))
            if self.random.random() < 0.001:
                self.lab.close()
                self.lab = Lab()


def one_process(seed: str, requests: int) -> None:
    Fuzzer(seed).run(requests)


def kernel_complaints() -> list[str]:
    text = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    # kernel/dma warns once of addresses beyond absurd limits, io-pgtable of forced unmaps.
    return [s for s in text.splitlines() if WRONG.search(s) and not EXPECTED.search(s)]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--requests", type=int, default=20_000, help="by each process")
    p.add_argument("--processes", type=int, default=3)
    args = p.parse_args()
    account = Account("fuzz")
    before = set(kernel_complaints())
    lab.load()
    lab.load_vm()
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        pids = [fork(one_process, f"{args.seed}.{i}", args.requests) for i in range(args.processes)]
        time.sleep(2)
        os.kill(pids[0], signal.SIGKILL)
        for pid in pids:
            status = os.waitpid(pid, 0)[1]
            if pid != pids[0] and status:
                account.surprise(f"process {pid}: status {status}")
        driver.reset()
    counts = lab.counts(lab.log())
    for done, undone in (
        ("export", "release"),
        ("attach", "detach"),
        ("context-create", "context-free"),
        ("context-attach", "context-detach"),
        ("pin", "unpin"),
    ):
        if counts.get(done, 0) < counts.get(undone, 0):
            account.surprise(f"more {undone} than {done}")
    account.facts["log"] = counts
    account.facts["state"] = (lab.DEBUGFS / "state").read_text().strip()
    for line in sorted(set(kernel_complaints()) - before)[:5]:
        account.surprise(line)
    account.did("request", args.requests * args.processes)
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
