# SPDX-License-Identifier: GPL-2.0-or-later
"""How a trace ends: Ctrl-C at any moment, kill -9, a full disk, a time, and refusals to begin."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness import (
    DEAR,
    SHARE,
    CompilingTracer,
    Result,
    Tracer,
    kprobe_events,
    programs,
    tool,
    tool_processes,
    until,
    workload,
)

from dmabuf_tool.capture.reader import open_capture

SMALL = Path("/tmp/small")
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


def interrupted() -> Result:
    """Ctrl-C while the child works, and, twice in a row, at the moment tracing begins."""
    result: Result = {}
    # Where it has to compile the child is busy for seconds.
    loading = CompilingTracer("loading", "-o", "/tmp/loading.dmabuf")
    loading.wait(lambda: bool(loading.children()), "a loader")
    result["loading"] = loading.interrupt().end()
    result["loading_capture"] = Path("/tmp/loading.dmabuf").exists()
    ready = Tracer("ready", "-f", "-o", str(SHARE / "ready.dmabuf")).ready()
    result["ready"] = ready.interrupt().interrupt().end()
    return result


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


def full_disk() -> Result:
    """A disk that somebody else fills while it takes a capture; events on stdout to the end."""
    SMALL.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(SMALL)], check=True)
    capture = SMALL / "full.dmabuf"
    tracer = Tracer("full", "-o", str(capture), "--format", "json").ready()
    with endless_load():
        tracer.wait(lambda: recorded(capture) > SOME, "events in the capture", DEAR)
        with contextlib.suppress(OSError), (SMALL / "somebody").open("wb", 0) as file:
            while True:
                file.write(bytes(1 << 12))
        tracer.wait(lambda: "No space left" in tracer.said(), "word of the full disk")
        shown = tracer.shown()
        tracer.wait(lambda: tracer.shown() > shown, "events after it")
    result = tracer.interrupt().end()
    shutil.copy(capture, SHARE / "full.dmabuf")
    subprocess.run(["umount", str(SMALL)], check=True)
    result["stdout"] = result["stdout"][-20000:]  # the last lines tell
    return result


def refused() -> Result:
    """What is told in one line before anything is loaded; and a trace with an end in time."""
    there = Path("/tmp/there.dmabuf")
    there.write_text("mine")
    nobody = str(os.getpid() + 100000)
    result = {
        "exists": tool("trace", "-o", str(there)),
        "no_directory": tool("trace", "-o", "/nowhere/x.dmabuf"),
        "no_pid": tool("trace", "-p", nobody),
        "no_device": tool("trace", "-D", "nosuch"),
        "no_command": tool("trace", "--", "/nowhere/command"),
        "duration": tool("trace", "-d", "0.5", "-f", "-o", str(SHARE / "duration.dmabuf")),
        "as_nobody": tool_as_nobody(),
    }
    return {**result, "kept": there.read_text(), "nobody": nobody}


def tool_as_nobody() -> Result:
    """The tool without root."""
    done = subprocess.run(
        ["/lab/bin/dmabuf-tool", "trace"],
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
    )
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
