# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace's start and its memory, natively: all of `trace`, with a raw tracepoint for its probes.

Prints the moment (CLOCK_MONOTONIC) when events flow, and VmRSS in KiB after LOAD has run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "native"), str(HERE.parents[1])]

from dmabuf_tool.probes import workshop  # noqa: E402

workshop.open_early()  # as the command does

from dmabuf_tool import live  # noqa: E402, F401 (what `trace` imports before it forks)

import native  # noqa: E402 isort: skip

from dmabuf_tool.probes import loader  # noqa: E402 isort: skip


def main(load: list[str]) -> None:
    """As live.run() does it."""
    loading = loader.start(native.options(1 << 20), (native.HOOK,), workshop.early)
    from dmabuf_tool.probes.session import Session
    from dmabuf_tool.rules.engine import Engine
    from dmabuf_tool.tracer import Tracer  # noqa: F401

    engine = Engine()
    loaded = loading.finish()
    loading.abandon()
    session = Session(loaded, native.options(1 << 20))
    session.start()
    ready = time.monotonic()
    with subprocess.Popen(load, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if (batch := session.read()) is not None:
                engine.feed(batch)
            time.sleep(0.05)
    status = Path("/proc/self/status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    print(json.dumps({"ready": ready, "rss_kib": int(rss.split()[1])}))
    session.close()


main(sys.argv[1:])
