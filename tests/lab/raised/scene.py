# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene: one function that does what a finding is about, or, a byte or a call away, what it
is not about.

    @scene("A", "size-mismatch", "error")
    def short(stage, bad):
        m = stage.mapped(stage.platform(), shape=Shape.SHORT if bad else Shape.HONEST)
        return {"missing": PAGE}

What it returns is the evidence expected of the finding when `bad`; times and addresses come from
the test driver's own log. It may raise OSError only where the kernel refuses as it should, which
`stage.refused()` expects.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workloads"))

import lab
import uapi
from lab import F, Lab, Mapping

PAGE = 4096
EXIT_SEEN_S = 1.5
"""A trace looks twice a second, and a leak is told a grace time later."""
Evidence = dict[str, Any]
Act = Callable[["Stage", bool], Evidence]


@dataclass(frozen=True)
class Scene:
    """`where`: any, x86_64 or aarch64; `severity`: of the finding, the near miss has less."""

    group: str
    id: str
    severity: str
    act: Act
    where: str

    @property
    def name(self) -> str:
        return f"{self.id}/{self.act.__name__}"


SCENES: list[Scene] = []


def scene(group: str, id_: str, severity: str, where: str = "any") -> Callable[[Act], Act]:
    """Put a function on the list."""

    def add(act: Act) -> Act:
        SCENES.append(Scene(group, id_, severity, act, where))
        return act

    return add


class Stage:
    """What a scene works with: the test driver, and what it leaves for the judge."""

    def __init__(self) -> None:
        self.driver = Lab()
        self.driver.clear_log()
        self.edu = self.driver.edu()
        self.constraints = ""
        """A constraints.toml for this scene."""
        self.thresholds: dict[str, int] = {}
        self.kernel: list[str] = []
        """What the kernel said: results of calls, lines of its log."""
        self.holders: list[dict[str, Any]] = []
        self._log_at = kernel_log()[1]
        self.start_ns = time.monotonic_ns()

    def close(self) -> None:
        """Keep how often the kernel did what; undo everything, leaks and devices too."""
        done = [f"{count} {op}" for op, count in lab.counts(lab.log()).items()]
        self.kernel.append(f"driver's log: {', '.join(done)}")
        self.driver.reset()
        self.driver.close()

    # ---- devices and buffers ----

    def platform(self, mask_bits: int = 64, **limits: int) -> int:
        return self.driver.platform(mask_bits=mask_bits, **limits)

    def name(self, device: int) -> str:
        return next(one.name for one in self.driver.devices() if one.nr == device)

    def export(self, pages: int = 16, run_pages: int = 0, flags: int = 0, **fields: int) -> int:
        """A buffer, in one run unless told."""
        return self.driver.export(pages * PAGE, run_pages=run_pages, flags=flags, **fields)

    def mapped(self, device: int, pages: int = 16, **fields: int) -> Mapping:
        """Export, attach, map, unmap, detach, close."""
        fd = self.export(pages, **fields)
        attachment = self.driver.attach(fd, device)
        m = self.driver.map(attachment)
        self.driver.unmap(m.nr)
        self.driver.detach(attachment)
        os.close(fd)
        self.kernel.append(f"map returned 0, {m.nents} entries, first {m.dma_addr:#x}+{m.dma_len}")
        return m

    def refused(self, call: Callable[[], Any]) -> int:
        """The errno of a call that must fail."""
        try:
            call()
        except OSError as error:
            self.kernel.append(f"returned -{errno.errorcode[error.errno or 0]}")
            return error.errno or 0
        raise AssertionError("the kernel did not refuse")

    def second(self) -> None:
        """Wait for the clock's next second: rates are counted in such."""
        time.sleep(1 - time.monotonic_ns() % 1_000_000_000 / 1e9 + 0.005)

    def takes(self, ms: int, ready: Callable[[int], Callable[[], Any]], bad: bool) -> None:
        """Make a call that takes `ms` and more; or, as the near miss, less by less than a
        millisecond. `ready` is given the delay and returns the call. What it really took decides:
        a busy machine adds to it, and then it is done again."""
        for _ in range(100):
            self.start_ns = time.monotonic_ns()
            call = ready(ms if bad else ms - 1)
            begin = time.monotonic_ns()
            call()
            took = (time.monotonic_ns() - begin) / 1e6
            if took >= ms if bad else took < ms:
                self.kernel.append(f"took {took:.3f} ms")
                return
        raise AssertionError(f"no call took {'' if bad else 'less than '}{ms} ms")

    # ---- processes ----

    def child(self, what: Callable[[Lab], None]) -> tuple[int, int]:
        """Run in a process of its own that exits, and wait until that is known.

        Returns its pid, and a time in ns when it had exited.
        """
        pid = os.fork()
        if not pid:
            status = 1
            with suppress(BaseException), Lab() as driver:
                what(driver)
                status = 0
            os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise AssertionError("the child failed")
        gone_ns = time.monotonic_ns()
        time.sleep(EXIT_SEEN_S)
        return pid, gone_ns

    def share(self, what: Callable[[Lab], None], read: int) -> int:
        """As `child`; takes over the descriptor whose number comes through a pipe."""
        pid = os.fork()
        if not pid:
            with suppress(BaseException), Lab() as driver:
                what(driver)
            os._exit(0)
        number = int(os.read(read, 64).rpartition(b"/")[2])
        pidfd = os.pidfd_open(pid)
        # pidfd_getfd(2): a dma-buf cannot be opened through /proc.
        libc = ctypes.CDLL(None, use_errno=True)
        held = int(libc.syscall(438, pidfd, number, 0))
        os.close(pidfd)
        assert held >= 0, os.strerror(ctypes.get_errno())
        os.waitpid(pid, 0)
        time.sleep(EXIT_SEEN_S)
        return held

    def look(self) -> None:
        """Who holds which buffers now, as a live trace looks."""
        from dmabuf_tool.kernel import fdinfo

        ts_ns = time.monotonic_ns()
        scan = fdinfo.scan()
        buffers: dict[int, list[Any]] = {}
        for process in scan.processes:
            for ino, holding in process.buffers.items():
                row = [process.pid, process.comm, len(holding.fds), holding.maps]
                buffers.setdefault(ino, []).append(row)
        self.holders.append(
            {
                "ts_ns": ts_ns,
                "complete": scan.complete,
                "buffers": [list(b) for b in buffers.items()],
            }
        )

    # ---- the kernel's words ----

    def log(self, *words: str) -> str:
        """The first new line of the kernel's log with one of these words; kept."""
        for _ in range(20):
            for line in kernel_log(self._log_at)[0]:
                if any(word in line for word in words):
                    self.kernel.append(line.strip())
                    return line
            time.sleep(0.02)
        self.kernel.append(f"no line in the kernel's log with {' or '.join(words)}")
        return ""


def kernel_log(after: int = -1) -> tuple[list[str], int]:
    """Lines of /dev/kmsg after a sequence number, and the last number."""
    lines, last = [], after
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines, last
            except BrokenPipeError:  # overwritten meanwhile
                continue
            head, _, text = record.partition(";")
            number = int(head.split(",")[1])
            if number > after:
                lines.append(text.splitlines()[0])
                last = max(last, number)
    finally:
        os.close(fd)


__all__ = ["PAGE", "SCENES", "Evidence", "F", "Lab", "Scene", "Stage", "lab", "scene", "uapi"]
