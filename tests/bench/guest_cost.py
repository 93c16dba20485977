# SPDX-License-Identifier: GPL-2.0-or-later
"""In a guest that counts instructions: a map/unmap pair without and with tracers.

Each measurement has an edu device of its own: 4 MiB of addresses are more than the IOVA allocator
caches, and once some hundred of them wait in a domain's flush queue its search for free space
takes twenty times what the rest of the pair does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

WORKLOADS = Path("/project/tests/lab/workloads")
LOOP = [sys.executable, str(WORKLOADS / "map_loop.py"), "--pairs", "40", "--rounds", "5"]
MAP, UNMAP = "dma_buf_map_attachment", "dma_buf_unmap_attachment"
ENABLED = Path("/sys/kernel/tracing/enabled_functions")
COUNTING = f"fentry:{MAP} {{ @m = count(); }} fentry:{UNMAP} {{ @u = count(); }}"
FIELDS = 'printf("%llu %s %d %p\\n", nsecs, comm, pid, args.attach);'
PRINTING = f"fentry:{MAP} {{ {FIELDS} }} fentry:{UNMAP} {{ {FIELDS} }}"


def loop(edu: int) -> list[float]:
    """Instructions per pair, by round."""
    done = subprocess.run([*LOOP, "--edu", str(edu)], stdout=subprocess.PIPE, check=True, text=True)
    account = json.loads(done.stdout.splitlines()[-1])
    assert account["exporter"] == "heap", account
    return list(account["ns_per_pair"])


def beside(edu: int, tracer: Sequence[str]) -> list[float]:
    """The loop while a tracer runs, from when both functions are hooked."""
    said = Path("/tmp/said")
    with said.open("wb") as out, subprocess.Popen(tracer, stdout=out, stderr=out) as process:
        while not hooked():
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        time.sleep(2)  # what a tracer does after its probes stand
        rounds = loop(edu)
        process.send_signal(signal.SIGINT)
        process.wait()
    assert not hooked()
    return rounds


def hooked() -> bool:
    """Whether ftrace calls somebody in both functions."""
    functions = ENABLED.read_text().split()
    return MAP in functions and UNMAP in functions


def main() -> None:
    """Each after the other; the last line is the result."""
    subprocess.run(["insmod", "/lab/modules/dmabuf_lab.ko"], check=True)
    capture = "/tmp/bench.dmabuf"
    tracers = {
        "trace": ["dmabuf-tool", "trace", "-o", capture],
        "counting": ["bpftrace", "-e", COUNTING],
        "printing": ["bpftrace", "-e", PRINTING],
    }
    result = {"none": loop(0)}
    print(json.dumps(result), file=sys.stderr, flush=True)
    for edu, (name, tracer) in enumerate(tracers.items(), 1):
        print(f"{name} ...", file=sys.stderr, flush=True)
        result[name] = beside(edu, tracer)
        print(json.dumps(result), file=sys.stderr, flush=True)
    print(json.dumps(result), flush=True)


main()
