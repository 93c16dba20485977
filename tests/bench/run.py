#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: what tracing costs, as ratios taken in one run, beside their budgets.

Nothing fails for being slow: machines differ, and this one may be busy. docs/benchmarks.md has the
figures of a quiet run and how each is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
LAB_RUN = PROJECT / "tests/lab/run"
NATIVE_TRACE = (sys.executable, str(PROJECT / "tests/native/command.py"), "trace")
KERNEL = "7.2"

RECORDS = 30_000_000
EVENTS_A_CALL = 64
CALLS_A_SECOND = 94_000
"""6 M records a second, where 5 M are asked for; without a limit the load makes 35 M."""
BCC_RECORDS = 1_000_000
BCC_CALLS_A_SECOND = 4_000
"""Of 64 records each: about a third of what a callback can take, so that it loses nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table. `good` is None where there is no budget."""

    what: str
    measured: str
    budget: str = ""
    good: bool | None = None


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def child(script: str, *arguments: str, **more: Any) -> Any:
    """Run a script of this directory; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        **more,
    )
    return json.loads(done.stdout.splitlines()[-1])


def in_guest(script: str, *options: str) -> Any:
    """Run a script of this directory in a guest; its last line is JSON."""
    done = subprocess.run(
        [str(LAB_RUN), "--kernel", KERNEL, *options, "--", "python3", f"tests/bench/{script}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compiled(work: Path) -> Path:
    """The load, as a program."""
    load = work / "load"
    if not load.exists():
        subprocess.run(["gcc", "-O2", "-o", str(load), str(HERE / "load.c")], check=True)
    return load


def consumer(work: Path) -> Iterator[Row]:
    """Draining the ring, natively."""
    load = compiled(work)
    say(f"{RECORDS:,} records through the ring")
    offer = (str(RECORDS), str(EVENTS_A_CALL), str(CALLS_A_SECOND))
    mine = child("consumer.py", "ours", *offer, str(load))
    say(f"{BCC_RECORDS:,} records through bcc's callback")
    rate = str(BCC_CALLS_A_SECOND)
    other = child("consumer.py", "bcc", str(BCC_RECORDS), str(EVENTS_A_CALL), rate, str(load))
    offered = (mine["received"] + mine["lost"]) / mine["load_s"]
    yield Row("records offered", f"{offered / 1e6:.1f} M/s", ">= 5 M/s", offered >= 5e6)
    mine_rate = mine["received"] / mine["cpu_s"]
    yield Row(
        "records drained", f"{mine_rate / 1e6:.1f} M/core-s", ">= 20 M/core-s", mine_rate >= 20e6
    )
    yield Row("of them lost", f"{mine['lost']}", "0", mine["lost"] == 0)
    other_rate = other["received"] / other["cpu_s"]
    ratio = mine_rate / other_rate
    yield Row("times bcc's callback with .event()", f"{ratio:.0f} x", ">= 25 x", ratio >= 25)
    lost = other["lost"] / (other["received"] + other["lost"])
    yield Row("  bcc, at a rate it holds", f"{other_rate / 1e6:.2f} M/core-s, {lost:.1%} lost")


def start(work: Path) -> Iterator[Row]:
    """From exec to events, and memory, natively: the whole command, judging and showing."""
    load = [str(compiled(work)), "32000", "16", "1000"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
    for label in ("compiling", "compiled"):
        say(f"start, {label}")
        begin = time.monotonic()
        with subprocess.Popen(
            NATIVE_TRACE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as trace:
            assert trace.stderr
            if not any("tracing dma-bufs" in line for line in trace.stderr):
                raise RuntimeError("the trace did not begin")
            seconds = time.monotonic() - begin
            subprocess.run(load, stdout=subprocess.DEVNULL, check=True)
            status = Path(f"/proc/{trace.pid}/status").read_text()
            trace.send_signal(signal.SIGINT)
        good = seconds <= 0.6
        yield Row(f"start, raw tracepoint, {label}", f"{seconds:.2f} s", "<= 0.6 s", good)
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    rss = int(line.split()[1]) / 1024
    yield Row("memory, native", f"{rss:.1f} MiB", "<= 45 MB", rss * 1.048576 <= 45)


def in_the_guest(_work: Path) -> Iterator[Row]:
    """Start and memory on an emulated machine."""
    say(f"start and memory in the {KERNEL} guest")
    result = in_guest("guest_start.py")
    for label in ("first", "again", "compiling"):
        seconds = result[f"{label}_s"]
        yield Row(f"start, guest, {label}", f"{seconds:.1f} s", "<= 8 s", seconds <= 8)
    rss = result["rss_kib"] / 1024
    yield Row("memory, guest", f"{rss:.1f} MiB", "<= 45 MB", rss * 1.048576 <= 45)


def help_time(_work: Path) -> Iterator[Row]:
    """--help against an interpreter that does nothing."""
    say("--help")
    tool = str(Path(sys.executable).with_name("dmabuf-tool"))

    def best(argv: Sequence[str]) -> float:
        times = []
        for _ in range(15):
            begin = time.perf_counter()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - begin)
        return min(times)

    nothing, mine = best([sys.executable, "-c", "pass"]), best([tool, "--help"])
    ratio = mine / nothing
    good = mine <= 0.15 or ratio <= 8
    text = f"{mine * 1000:.0f} ms, {ratio:.1f} x"
    yield Row("--help, against python3 -c pass", text, "150 ms or 8 x", good)


def traced_path(_work: Path) -> Iterator[Row]:
    """Instructions that tracing adds to a pair of map and unmap."""
    say(f"instructions of a map/unmap pair of a 4 MiB heap buffer in the {KERNEL} guest")
    more = "-device edu,dma_mask=0xffffffff"
    # Strict: addresses are free again at once. A flush queue makes the search for free ones cost up
    # to a hundred thousand instructions, by when it was flushed last.
    strict = ("--append", "iommu.strict=1")
    result = in_guest("guest_cost.py", "--icount", *strict, "--qemu", more)
    bare = statistics.median(result["none"])
    yield Row("pair of map and unmap", f"{bare:,.0f} instructions")
    names = {
        "trace": "  added by trace -o",
        "counting": "  added by bpftrace, counting",
        "printing": "  added by bpftrace, printing 4 fields",
    }
    for key, name in names.items():
        # Rounds in which the tracer's user space ran on the one processor are far off.
        added = statistics.median(result[key]) - bare
        text = f"{added:,.0f} instructions"
        if key == "trace":
            yield Row(name, text, "<= 5,000 (aim 2,500)", added <= 5000)
            ours = added
        else:
            yield Row(name, text)
            yield Row("    trace -o against it", f"{ours / added:.2f} x")


def levels(_work: Path) -> Iterator[Row]:
    """Level 2 in the model: traffic of private domains, and a million level-1 segments."""
    say("level 2 in the model")
    result = child("levels.py")
    kinds = {
        "short": ("map and unmap in a private domain, 8 live", 1),
        "long": ("map and unmap in a private domain, 20,000 live", 1),
        "scattered": ("map in a private domain, 16 calls and an unmap a buffer", 16),
    }
    for key, (name, calls) in kinds.items():
        us = result[key] / calls
        yield Row(name, f"{us:.1f} us", "<= 5 us", us <= 5)
    us, size = result["match"], result["bytes"]
    yield Row("map matched among 1 M segments", f"{us:.1f} us", "<= 20 us", us <= 20)
    yield Row("memory of a live segment", f"{size:.0f} bytes", "< 200 bytes", size < 200)


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "consumer": consumer,
    "start": start,
    "help": help_time,
    "levels": levels,
    "guest": in_the_guest,
    "path": traced_path,
}


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned; a budget that is not kept is marked."""
    marks = {True: "ok", False: "OVER", None: ""}
    cells = [("what", "measured", "budget", "")]
    cells += [(row.what, row.measured, row.budget, marks[row.good]) for row in rows]
    widths = [max(len(cell[i]) for cell in cells) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(cell, widths, strict=True)) for cell in cells]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Run the parts that were asked for, all unless told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if os.geteuid() != 0:
        print("bench: loading programs needs root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="dmabuf-bench") as name:
        rows = [row for part in PARTS if part in chosen for row in PARTS[part](Path(name))]
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
