# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenarios in the guest share: running the tool, waiting for it, keeping what it said.

A scenario is a function that does something with the tool and returns what happened, as JSON;
the tests on the other side (tests/lab/test_*.py) judge it. Captures and logs are files in /share.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["lab", "uapi"]  # of the workloads

SHARE = Path("/share")
WORKLOADS = Path("/project/tests/lab/workloads")
TIMEOUT = 600.0
"""Seconds for any one program, far beyond what an emulated machine needs: only a hang gets here."""

Result = dict[str, Any]

sys.path[:0] = [str(WORKLOADS), str(WORKLOADS.parent)]

import lab  # noqa: E402 (the path is set above)
import uapi  # noqa: E402


def kernel() -> str:
    """This kernel as the lab calls it."""
    here = os.uname()
    return "arm64" if here.machine == "aarch64" else ".".join(here.release.split(".")[:2])


def workload(name: str, *arguments: str) -> list[str]:
    """The command line of a workload."""
    return [sys.executable, str(WORKLOADS / name), *arguments]


def run(argv: Sequence[str]) -> Result:
    """Run a program to its end."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return {
        "argv": list(argv),
        "status": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
    }


def tool(*arguments: str) -> Result:
    """Run dmabuf-tool to its end."""
    return run(["dmabuf-tool", *arguments])


DEAR = 0.3
"""Seconds between looks that cost much of an emulated processor: at captures, or by bpftool."""


def until(condition: Callable[[], bool], what: str, every: float = 0.02) -> None:
    """Wait until it holds, with a look `every` so many seconds; raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(every)


class Tracer:
    """`dmabuf-tool trace` at work, in a process group of its own like a terminal's."""

    tool: tuple[str, ...] = ("dmabuf-tool",)

    def __init__(self, name: str, *arguments: str, **environment: str) -> None:
        self._out, self._err = Path(f"/tmp/{name}.out"), Path(f"/tmp/{name}.err")
        self._argv = [*self.tool, "trace", *arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text()

    def ready(self) -> Tracer:
        """Wait until it traces."""
        self.wait(lambda: "tracing dma-bufs" in self.said(), "tracing")
        return self

    def wait(self, condition: Callable[[], bool], what: str, every: float = 0.02) -> None:
        """Wait until it holds; raises when the tool ends before."""

        def either() -> bool:
            return condition() or self.process.poll() is not None

        until(either, what, every)
        if not condition():
            raise RuntimeError(f"ended before {what}: {self.said()}")

    def interrupt(self) -> Tracer:
        """Ctrl-C: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self

    def kill(self) -> Tracer:
        """kill -9, of the one process."""
        self.process.kill()
        return self

    def end(self) -> Result:
        """Wait for its end."""
        return {
            "argv": self._argv,
            "status": self.process.wait(TIMEOUT),
            "stdout": self._out.read_text(),
            "stderr": self.said(),
        }


def listed_programs() -> list[dict[str, Any]]:
    """BPF programs in the kernel, as bpftool tells of them; it is silent where there are none."""
    listed: list[dict[str, Any]]
    listed = json.loads(run(["bpftool", "-j", "prog", "list"])["stdout"] or "[]")
    return listed


def programs() -> list[str]:
    """BPF programs in the kernel, as "id name"."""
    return sorted(f"{p['id']} {p.get('name', '')}" for p in listed_programs())


def kprobe_events() -> list[str]:
    """Kprobes made through tracefs, the perf PMU's own left out: they are never ours to leave."""
    return Path("/sys/kernel/tracing/kprobe_events").read_text().splitlines()


def tool_processes() -> list[str]:
    """Processes of the tool, this script left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "/lab/bin/dmabuf-tool" in line:
                found.append(f"{entry.name} {line}")
    return found


def save(name: str, scenario: Callable[[], Result]) -> None:
    """Run a scenario and leave its result in the share; what goes wrong is a result too."""
    begin, worked = time.monotonic(), busy_s()
    try:
        result = scenario()
    except Exception:
        result = {"error": traceback.format_exc()}
    seconds, worked = time.monotonic() - begin, busy_s() - worked
    (SHARE / f"{name}.json").write_text(json.dumps(result, indent=1))
    with (SHARE / "times").open("a") as times:
        times.write(f"{name} {seconds:.1f} {worked:.1f}\n")
    state = "failed" if "error" in result else "done"
    print(
        f"{os.uname().release} {name}: {state} in {seconds:.1f} s,"
        f" {worked:.1f} s of processors' time",
        flush=True,
    )


def busy_s() -> float:
    """Seconds that processors were not idle since the guest booted, all together."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:9])
    return sum((user, nice, system, *interrupts[:2])) / os.sysconf("SC_CLK_TCK")
