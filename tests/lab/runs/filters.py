# SPDX-License-Identifier: GPL-2.0-or-later
"""Two traces at once, each with a filter of its own, over the same workloads, until Ctrl-C."""

from __future__ import annotations

import shlex
import subprocess

from harness import SHARE, TIMEOUT, Result, Tracer, lab, run, workload

DEVICE = "0000:00:03.0"


def filters() -> Result:
    """One process of many is chosen by its pid and name; one device and one exporter (with stacks),
    of each of which there is more without the other."""
    lab.load()
    loop = workload("map_loop.py", "--exporter", "driver", "--pairs", "5", "--rounds", "1")
    # A shell that waits for a line and becomes the workload: its pid is known beforehand.
    chosen = subprocess.Popen(
        ["sh", "-c", f"read go; exec {shlex.join(loop)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    asked = {
        "pid": ("-p", str(chosen.pid), "-c", "nobody*", "-c", "python*"),
        "device": ("-D", DEVICE, "-x", "dmabuf_l*", "--stacks"),
    }
    # They start, and end, one after the other: at once, each only waits for the others' locks.
    tracers = {
        name: Tracer(
            f"filter-{name}", *arguments, "-f", "-o", str(SHARE / f"filter-{name}.dmabuf")
        ).ready()
        for name, arguments in asked.items()
    }
    log = str(SHARE / "filters.log")
    random = run(workload("random_ops.py", "--operations", "300", "--seed", "7", "--log", log))
    chosen.communicate(b"go\n", TIMEOUT)
    results = {name: tracer.interrupt().end() for name, tracer in tracers.items()}
    return {
        "pid": chosen.pid,
        "workloads": [random["status"], chosen.returncode],
        "traces": results,
    }
