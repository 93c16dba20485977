# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9, and what is left then; how else a trace ends: tests/native/test_trace_ends.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness import (
    DEAR,
    Result,
    Tracer,
    kprobe_events,
    programs,
    tool_processes,
    until,
    workload,
)

from dmabuf_tool.capture.reader import open_capture

SOME = 50
"""Events, as many as test_ends.py asks for of a killed trace."""


def recorded(capture: Path) -> int:
    """Events in the whole frames of a capture that is being written."""
    with open_capture(capture) as reader:
        return sum(len(batch.events) for batch in reader.batches())


@contextlib.contextmanager
def endless_load() -> Iterator[None]:
    """Operations for as long as it takes, and no longer, whatever goes wrong meanwhile. With
    pauses: what is looked at is how a trace ends, and the processors are needed for that."""
    command = workload("random_ops.py", "--operations", "1000000", "--pause-ms", "4")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as load:
        try:
            yield
        finally:
            os.killpg(load.pid, signal.SIGKILL)  # its workers too


def kill(tracer: Tracer, capture: Path, before: list[str]) -> Result:
    """kill -9 while events flow, and wait until the programs are those from before.

    They flow no longer than that: the kernel takes seconds to take all probes off, and QEMU may run
    stale translations of code that is patched while it is executed (docs/decisions.md).
    """
    during = programs()
    with endless_load():
        tracer.wait(lambda: recorded(capture) > SOME, "events in the capture", DEAR)
        tracer.kill()
    ended = tracer.end()
    until(lambda: not tool_processes(), "the tool's children to end", DEAR)
    until(lambda: programs() == before, "the programs to be gone", DEAR)
    return {**ended, "before": before, "during": during, "kprobe_events": kprobe_events()}
