#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random legal operations on shared buffers from several processes, each through the driver.

Every process exports buffers, hands some to the others (SCM_RIGHTS), attaches them to edu and
platform devices, maps, unmaps, pins, syncs and lets go, by a seeded choice. Nothing illegal is
asked, so nothing may fail. With --log the driver's own log is written to a file at the end: it
is the truth a capture of the same time is held against.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import lab
import sources
import uapi
from lab import Dir, F, Lab
from processes import fork
from report import Account

MAX_BUFFERS, MAX_ATTACHMENTS, MAX_MAPS = 12, 24, 4
SIZES = [1, 2, 4, 16, 64, 256]  # pages

# How often an operation is tried; names of Worker methods.
WEIGHTS = {
    "export": 4,
    "attach": 10,
    "map": 24,
    "unmap": 22,
    "detach": 9,
    "pin": 6,
    "unpin": 6,
    "cpu_access": 6,
    "close": 4,
    "give": 2,
    "take": 2,
}


@dataclass
class Buffer:
    fd: int
    size: int
    dynamic: bool = False
    users: int = 0


@dataclass
class Attachment:
    nr: int
    buffer: Buffer
    dynamic: bool
    direction: int
    maps: list[int] = field(default_factory=list)
    pins: int = 0


class Worker:
    """One process's part: its own file of the driver, its buffers and attachments."""

    def __init__(
        self, seed: str, stock: dict[str, Callable[[int], int]], peer: socket.socket
    ) -> None:
        self.random = random.Random(seed)
        self.account = Account("random_ops")
        self.lab = Lab()
        self.devices = [d.nr for d in self.lab.devices()]
        self.stock = stock
        self.peer = peer
        self.buffers: list[Buffer] = []
        self.attachments: list[Attachment] = []

    # Each operation returns False when the state offers nothing to do it on.

    def export(self) -> bool:
        if len(self.buffers) >= MAX_BUFFERS:
            return False
        size = self.random.choice(SIZES) * uapi.PAGE
        name = self.random.choice(["driver", "driver", *self.stock])
        if name != "driver":
            self.buffers.append(Buffer(self.stock[name](size), size))
            self.account.did(f"export {name}")
            return True
        dynamic = self.random.random() < 0.4
        fd = self.lab.export(
            size,
            run_pages=self.random.choice([1, 2, 4, 16]),
            flags=(F.DYNAMIC if dynamic else 0) | F.DMA32,
        )
        self.buffers.append(Buffer(fd, size, dynamic))
        self.account.did("export driver")
        return True

    def attach(self) -> bool:
        if not self.buffers or len(self.attachments) >= MAX_ATTACHMENTS:
            return False
        buffer = self.random.choice(self.buffers)
        dynamic = self.random.random() < 0.3
        device = self.random.choice(self.devices)
        nr = self.lab.attach(buffer.fd, device, F.DYNAMIC if dynamic else 0)
        buffer.users += 1
        self.attachments.append(Attachment(nr, buffer, dynamic, self.direction(buffer, dynamic)))
        self.account.did("attach")
        return True

    def direction(self, buffer: Buffer, dynamic: bool) -> int:
        """One direction for an attachment's life: kernels that cache tables allow no other."""
        if buffer.dynamic != dynamic:
            return Dir.BIDIRECTIONAL
        return self.random.choice(list(Dir))

    def map(self) -> bool:
        free = [a for a in self.attachments if not a.maps]
        if not free:
            return False
        a = self.random.choice(free)
        m = self.lab.map(a.nr, a.direction)
        if m.dma_sum != a.buffer.size:
            self.account.surprise(f"map of {a.buffer.size} bytes has {m.dma_sum}")
        a.maps.append(m.nr)
        self.account.did("map")
        return True

    def unmap(self) -> bool:
        mapped = [a for a in self.attachments if a.maps]
        if not mapped:
            return False
        self.lab.unmap(self.random.choice(mapped).maps.pop())
        self.account.did("unmap")
        return True

    def pin(self) -> bool:
        able = [a for a in self.attachments if a.dynamic and a.pins < MAX_MAPS]
        if not able:
            return False
        a = self.random.choice(able)
        self.lab.pin(a.nr)
        a.pins += 1
        self.account.did("pin")
        return True

    def unpin(self) -> bool:
        pinned = [a for a in self.attachments if a.pins]
        if not pinned:
            return False
        a = self.random.choice(pinned)
        self.lab.unpin(a.nr)
        a.pins -= 1
        self.account.did("unpin")
        return True

    def detach(self) -> bool:
        idle = [a for a in self.attachments if not a.maps and not a.pins]
        if not idle:
            return False
        a = self.random.choice(idle)
        self.lab.detach(a.nr)
        a.buffer.users -= 1
        self.attachments.remove(a)
        self.account.did("detach")
        return True

    def cpu_access(self) -> bool:
        if not self.buffers:
            return False
        buffer = self.random.choice(self.buffers)
        direction = self.random.choice(list(Dir))
        self.lab.cpu_begin(buffer.fd, direction)
        self.lab.cpu_end(buffer.fd, direction)
        self.account.did("cpu access")
        return True

    def close(self) -> bool:
        """Closes an fd, attached or not; the last one to let go releases the buffer."""
        if len(self.buffers) < 3:
            return False
        buffer = self.random.choice(self.buffers)
        self.buffers.remove(buffer)
        os.close(buffer.fd)
        self.account.did("close")
        return True

    def give(self) -> bool:
        if not self.buffers:
            return False
        buffer = self.random.choice(self.buffers)
        note = json.dumps([buffer.size, buffer.dynamic]).encode()
        try:
            socket.send_fds(self.peer, [note], [buffer.fd], socket.MSG_DONTWAIT)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        self.account.did("give")
        return True

    def take(self) -> bool:
        if len(self.buffers) >= MAX_BUFFERS or not select.select([self.peer], [], [], 0)[0]:
            return False
        try:
            note, fds, _, _ = socket.recv_fds(self.peer, 256, 1)
        except ConnectionResetError:  # the peer ended with a gift of ours unread
            return False
        if not fds:
            return False
        size, dynamic = json.loads(note)
        self.buffers.append(Buffer(fds[0], size, dynamic))
        self.account.did("take")
        return True

    def run(self, operations: int, pause_s: float) -> None:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        done = 0
        while done < operations:
            name = self.random.choices(names, weights)[0]
            try:
                done += getattr(self, name)()
            except OSError as e:
                self.account.surprise(f"{name}: {e}")
                return
            if pause_s:
                time.sleep(pause_s)

    def wind_down(self) -> None:
        """Undoes half by hand, leaves the rest to the closing of the file."""
        for a in self.attachments[::2]:
            for m in a.maps:
                self.lab.unmap(m)
                self.account.did("unmap")
            for _ in range(a.pins):
                self.lab.unpin(a.nr)
                self.account.did("unpin")
            self.lab.detach(a.nr)
            self.account.did("detach")
        for buffer in self.buffers:
            os.close(buffer.fd)
            self.account.did("close")
        self.lab.close()
        self.peer.close()


def child(worker: Worker, operations: int, pause_s: float, result: int) -> None:
    worker.run(operations, pause_s)
    worker.wind_down()
    with os.fdopen(result, "w") as f:
        json.dump({"done": worker.account.done, "unexpected": worker.account.unexpected}, f)


def ring(n: int) -> list[socket.socket]:
    """A socket for each process; the fds given by one are taken by another."""
    ends: list[socket.socket] = []
    for _ in range((n + 1) // 2):
        ends += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ends


def fork_worker(
    worker_args: tuple, operations: int, pause_s: float, others: list[socket.socket]
) -> tuple:
    """Starts a child; its pid and the fd its account comes from."""
    read, write = os.pipe()

    def work() -> None:
        os.close(read)
        for s in others:
            s.close()
        child(Worker(*worker_args), operations, pause_s, write)

    pid = fork(work)
    os.close(write)
    return pid, read


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--operations", type=int, default=10_000, help="by all processes together")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--pause-ms", type=float, default=0, help="of a process, between operations")
    p.add_argument("--log", help="write the driver's log here at the end")
    args = p.parse_args()
    account = Account("random_ops")
    stock = sources.available(account)
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        driver.platform(max_seg=1 << 20)
        driver.platform(flags=F.NO_PARMS)
        ends = ring(args.processes)
        share = [args.operations // args.processes] * args.processes
        share[0] += args.operations - sum(share)
        children = []
        for i in range(args.processes):
            others = [s for s in ends if s is not ends[i]]
            worker_args = (f"{args.seed}.{i}", stock, ends[i])
            children.append(fork_worker(worker_args, share[i], args.pause_ms / 1000, others))
        for s in ends:
            s.close()
        for pid, fd in children:
            with os.fdopen(fd) as f:
                text = f.read()
            if os.waitpid(pid, 0)[1] or not text:
                account.surprise(f"process {pid} died")
                continue
            result = json.loads(text)
            account.done.update(result["done"])
            account.unexpected += result["unexpected"]
        driver.reset()
    account.facts = {"seed": args.seed, "processes": args.processes}
    failed = [line for line in lab.settle(account, args.log) if line["result"]]
    if failed:
        account.surprise(f"{len(failed)} lines of the log failed, first: {failed[0]}")
    return account.finish()


if __name__ == "__main__":
    sys.exit(main())
