# SPDX-License-Identifier: GPL-2.0-or-later
"""In a guest that counts instructions: a map/unmap pair without and with tracers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

WORKLOADS = Path("/project/tests/lab/workloads")
LOOP = [sys.executable, str(WORKLOADS / "map_loop.py"), "--pairs", "500", "--rounds", "12"]
MAP, UNMAP = "dma_buf_map_attachment", "dma_buf_unmap_attachment"
# The spread of a hot path with the tracer's own work left out is its least; both are told.
COUNTING = f"fentry:{MAP} {{ @m = count(); }} fentry:{UNMAP} {{ @u = count(); }}"
FIELDS = 'printf("%llu %s %d %p\\n", nsecs, comm, pid, args.attach);'
PRINTING = f"fentry:{MAP} {{ {FIELDS} }} fentry:{UNMAP} {{ {FIELDS} }}"


def loop() -> list[float]:
    """Instructions per pair, by round."""
    done = subprocess.run(LOOP, stdout=subprocess.PIPE, check=True, text=True)
    account = json.loads(done.stdout.splitlines()[-1])
    assert account["exporter"] == "heap", account
    return list(account["ns_per_pair"])


def beside(tracer: Sequence[str], ready: str) -> list[float]:
    """The loop while a tracer runs, from when it has said that it is ready."""
    said = Path("/tmp/said")
    with said.open("wb") as out, subprocess.Popen(tracer, stdout=out, stderr=out) as process:
        while ready not in said.read_text(errors="replace"):
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        time.sleep(2)  # bpftrace says so before it attaches
        rounds = loop()
        process.send_signal(signal.SIGINT)
        process.wait()
    return rounds


def main() -> None:
    """Each after the other; the last line is the result."""
    subprocess.run(["insmod", "/lab/modules/dmabuf_lab.ko"], check=True)
    loop()
    result = {"none": loop()}
    capture = "/tmp/bench.dmabuf"
    result["trace"] = beside(["dmabuf-tool", "trace", "-o", capture], "tracing dma-bufs")
    begin = 'BEGIN { printf("ready\\n"); } '
    result["counting"] = beside(["bpftrace", "-e", begin + COUNTING], "ready")
    result["printing"] = beside(["bpftrace", "-e", begin + PRINTING], "ready")
    print(json.dumps(result), flush=True)


main()
