# SPDX-License-Identifier: GPL-2.0-or-later
"""In a guest that counts instructions: a map/unmap pair without and with tracers.

All tracers see one buffer, made before them: what the IOMMU takes for it depends on where it lies.
Each measurement has an edu device of its own: 4 MiB of addresses are more than the IOVA allocator
caches, and where some hundred of them wait in a domain's flush queue (run.py boots with strict
domains, which have none) its search for free space takes twenty times what the rest of the pair
does.
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
LOOP = [
    *(sys.executable, str(WORKLOADS / "map_loop.py")),
    *("--pairs", "40", "--rounds", "5", "--settle", "20"),
]
MAP, UNMAP = "dma_buf_map_attachment", "dma_buf_unmap_attachment"
ENABLED = Path("/sys/kernel/tracing/enabled_functions")
COUNTING = f"fentry:{MAP} {{ @m = count(); }} fentry:{UNMAP} {{ @u = count(); }}"
FIELDS = 'printf("%llu %s %d %p\\n", nsecs, comm, pid, args.attach);'
PRINTING = f"fentry:{MAP} {{ {FIELDS} }} fentry:{UNMAP} {{ {FIELDS} }}"


class Loop:
    """The loop, one device after the other, with one buffer."""

    def __init__(self, devices: int) -> None:
        numbers = (word for edu in range(devices) for word in ("--edu", str(edu)))
        self._process = subprocess.Popen(
            [*LOOP, *numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def next(self) -> list[float]:
        """Instructions per pair, by round, on the next device; each but the first is told to go."""
        assert self._process.stdout is not None
        return list(json.loads(self._process.stdout.readline()))

    def go(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Let it end, and look whether the buffer was the heap's."""
        said, _ = self._process.communicate("\n")
        account = json.loads(said.splitlines()[-1])
        assert self._process.returncode == 0 and account["exporter"] == "heap", account


def beside(loop: Loop, tracer: Sequence[str]) -> list[float]:
    """The loop while a tracer runs, from when both functions are hooked."""
    said = Path("/tmp/said")
    with said.open("wb") as out, subprocess.Popen(tracer, stdout=out, stderr=out) as process:
        while not hooked():
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        time.sleep(2)
        loop.go()
        rounds = loop.next()
        process.send_signal(signal.SIGINT)
        process.wait()
    assert not hooked()
    return rounds


def hooked() -> bool:
    """Whether ftrace calls somebody in both functions."""
    functions = ENABLED.read_text().split()
    return MAP in functions and UNMAP in functions


def main() -> None:
    """Each after the other, or those that are named; the last line is the result."""
    subprocess.run(["insmod", "/lab/modules/dmabuf_lab.ko"], check=True)
    capture = "/tmp/bench.dmabuf"
    tracers = {
        "trace": ["dmabuf-tool", "trace", "-o", capture],
        "counting": ["bpftrace", "-e", COUNTING],
        "printing": ["bpftrace", "-e", PRINTING],
    }
    if sys.argv[1:]:
        tracers = {name: tracers[name] for name in sys.argv[1:]}
    loop = Loop(1 + len(tracers))
    result = {"none": loop.next()}
    print(json.dumps(result), file=sys.stderr, flush=True)
    for name, tracer in tracers.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        result[name] = beside(loop, tracer)
        print(json.dumps(result), file=sys.stderr, flush=True)
    loop.end()
    print(json.dumps(result), flush=True)


main()
