# SPDX-License-Identifier: GPL-2.0-or-later
"""How a trace ends: Ctrl-C at any moment, after its time, and what it does when a disk is full."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import native
import pytest

from dmabuf_tool.capture.reader import open_capture

COMMAND = (sys.executable, str(Path(__file__).with_name("command.py")), "trace")
MOMENTS = 12
SOME = 50


class Trace:
    """`dmabuf-tool trace` at work, in a process group of its own like a terminal's."""

    def __init__(self, place: Path, *arguments: object) -> None:
        self._out, self._err = place / "out", place / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def said(self) -> str:
        """What it wrote to stderr so far; to the end, once it has ended."""
        return self._err.read_text()

    def shown(self) -> str:
        """The same of stdout."""
        return self._out.read_text()

    def holds_stops(self) -> bool:
        """Whether it came to its first lines, behind which no Ctrl-C is Python's to answer."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
        return bool(int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1)

    def traces(self) -> bool:
        """Whether it said so; never, if it has ended before."""
        assert self.process.poll() is None, self.said()
        return "tracing dma-bufs" in self.said()

    def interrupt(self) -> Trace:
        """Ctrl-C: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self

    def end(self) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(60)


@pytest.fixture
def trace(tmp_path):
    """Starts traces; none outlives its test."""
    begun = []

    def begin(*arguments):
        begun.append(Trace(tmp_path, *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()


def read(path):
    """Events, reason of the end, notes."""
    with open_capture(path) as reader:
        count = sum(len(batch.events) for batch in reader.batches())
        return count, reader.reason, reader.notes


def check_interrupted(trace, capture):
    """It recorded nothing and says so, or it is whole; returns its status."""
    status, said = trace.end(), trace.said()
    assert "Traceback" not in said
    if status == 1:
        assert said == "dmabuf-tool: stopped before tracing began; nothing was recorded\n"
        assert not capture.exists()
    else:
        assert status == 0, said
        assert "events in" in said
        assert read(capture)[1:] == ("interrupted", [])
    return status


def test_ctrl_c_at_any_moment(trace, tmp_path, until):
    for name in ("compiles", "does not"):
        begin = time.monotonic()
        whole = trace("-o", tmp_path / f"{name}.dmabuf", "--", "true")
        assert whole.end() == 0, whole.said()
        longest = time.monotonic() - begin
    for number in range(MOMENTS):
        capture = tmp_path / f"{number}.dmabuf"
        one = trace("-o", capture)
        until(one.holds_stops)
        time.sleep(longest * number / MOMENTS)
        check_interrupted(one.interrupt(), capture)


def test_ctrl_c_twice_as_tracing_begins(trace, tmp_path, until):
    one = trace("-o", tmp_path / "twice.dmabuf")
    until(one.traces)
    one.interrupt().interrupt()
    assert check_interrupted(one, tmp_path / "twice.dmabuf") == 0


def test_ctrl_c_while_it_compiles(trace, tmp_path, until, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("NEVER_COMPILES", "")
    one = trace("-o", tmp_path / "compiling.dmabuf")
    children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children")
    until(lambda: len(children.read_text().split()) == 2)  # the loader and the workshop
    assert check_interrupted(one.interrupt(), tmp_path / "compiling.dmabuf") == 1


def test_a_trace_ends_with_its_time(trace, tmp_path):
    one = trace("-d", "0.3", "-o", tmp_path / "time.dmabuf")
    assert one.end() == 0, one.said()
    assert read(tmp_path / "time.dmabuf")[1:] == ("done", [])


@pytest.fixture
def small(tmp_path):
    """A disk of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_recording_and_not_the_trace(trace, small, until):
    """Somebody else fills it. What is written stays, events go on to be shown."""
    capture = small / "full.dmabuf"
    one = trace("-o", capture, "--format", "json")
    until(one.traces)

    def sent(condition):
        def look():
            native.send(native.MOST)
            return condition()

        return look

    until(sent(lambda: read(capture)[0] > SOME))
    with contextlib.suppress(OSError), (small / "somebody").open("wb", 0) as file:
        while True:
            file.write(bytes(1 << 12))
    until(sent(lambda: "No space left" in one.said()))
    shown = len(one.shown())
    until(sent(lambda: len(one.shown()) > shown))
    assert one.interrupt().end() == 0
    told = [line for line in one.said().splitlines() if line.startswith("dmabuf-tool: ")]
    assert len(told) == 1 and "No space left on device" in told[0]
    assert "Traceback" not in one.said()
    count, reason, _ = read(capture)
    assert reason in ("disk full", "")  # there may be no room even for the reason
    seen = next(line for line in one.said().splitlines() if " events in " in line)
    assert int(seen.split()[0]) > count > 0
    assert json.loads(one.shown().splitlines()[-1])["type"] in ("event", "finding")
