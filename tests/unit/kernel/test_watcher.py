# SPDX-License-Identifier: GPL-2.0-or-later
import os
import select
import signal
import struct
import time
from pathlib import Path

import pytest

from dmabuf_tool.kernel import procevents, uevents
from dmabuf_tool.kernel.watcher import Watcher


def _until(watcher, done):
    """Read until done or 10 s."""
    events = []
    end = time.monotonic() + 10
    while not done(events) and time.monotonic() < end and watcher.fileno() >= 0:
        if select.select([watcher], [], [], 0.1)[0]:
            events += watcher.read()
    return events


def test_events_arrive_and_the_end_is_told():
    with Watcher(lambda: iter([{"a": 1}, {"b": "\n\x1b"}])) as watcher:
        assert _until(watcher, lambda _: False) == [{"a": 1}, {"b": "\n\x1b"}]
        assert watcher.problem == "the watching process ended (status 0)"
        assert watcher.fileno() == -1
        assert watcher.read() == []


def test_a_problem_is_told():
    def fail():
        raise ImportError("No module named 'pyroute2'")
        yield {}

    with Watcher(fail) as watcher:
        _until(watcher, lambda _: False)
        assert watcher.problem == "ImportError: No module named 'pyroute2'"


def test_closing_ends_the_child():
    def forever():
        while True:
            yield {"pid": os.getpid()}

    watcher = Watcher(forever)
    pid = _until(watcher, bool)[0]["pid"]
    watcher.close()
    watcher.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_child_keeps_no_descriptor_of_the_parent(tmp_path):
    def open_files():
        yield {"fds": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in _fds())}

    with (tmp_path / "link").open("w"), Watcher(open_files) as watcher:
        (event,) = _until(watcher, bool)
    assert not any("link" in name for name in event["fds"])


def _fds():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        if Path(f"/proc/self/fd/{fd}").exists() or int(fd) < 3:
            found.append(fd)
    return found


def test_the_child_dies_with_a_parent_that_is_killed():
    def forever():
        while True:
            time.sleep(60)
            yield {}

    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        watcher = Watcher(forever)
        os.write(writer, struct.pack("i", watcher._pid))
        time.sleep(60)
        os._exit(0)
    (child,) = struct.unpack("i", os.read(reader, 4))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    end = time.monotonic() + 10
    while _alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _alive(child)


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_uevents_that_matter():
    bind = {
        "ACTION": "bind",
        "DEVPATH": "/devices/pci0000:00/0000:00:03.0",
        "SUBSYSTEM": "pci",
        "DRIVER": "edu",
        "SEQNUM": "1984",
    }
    event = uevents.change(bind)
    assert uevents.changes([event]) == [
        uevents.Change("bind", "pci", "0000:00:03.0", "edu", "/devices/pci0000:00/0000:00:03.0")
    ]
    assert uevents.change({**bind, "SUBSYSTEM": "queues"}) is None
    assert uevents.change({"header": {"message": "libudev"}}) is None


def test_processes_that_matter():
    fields = {
        "what": procevents.EXIT,
        "process_pid": 312,
        "process_tgid": 312,
        "timestamp_ns": 5,
        "exit_code": 9,
    }
    event = procevents.process_event(fields)
    assert procevents.events([event]) == [procevents.ProcessEvent("exit", 312, 5, 9)]
    assert procevents.process_event({**fields, "process_pid": 313}) is None  # a thread
    assert procevents.process_event({**fields, "what": 1}) is None  # a fork


def test_connector_messages():
    def message(what, *numbers):
        body = struct.pack("=IIIIHH", 1, 1, 0, 0, 40, 0) + struct.pack("=IIQ", what, 1, 77)
        body += struct.pack(f"={len(numbers)}I", *numbers).ljust(24, b"\0")
        return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body

    data = message(procevents.EXEC, 10, 10) + message(procevents.EXIT, 11, 11, 256, 17)
    execed, ended = procevents.parse(data)
    assert (execed["what"], execed["process_pid"], execed["timestamp_ns"]) == (2, 10, 77)
    assert (ended["what"], ended["process_tgid"], ended["exit_code"]) == (0x80000000, 11, 256)
    assert list(procevents.parse(b"\0" * 64)) == []
    assert list(procevents.parse(data[:30])) == []


@pytest.mark.native
@pytest.mark.skipif(os.geteuid() != 0, reason="the connector needs root")
def test_the_end_of_a_process_is_seen():
    with procevents.watch() as watcher:
        pids = set()

        def seen(events):
            if watcher.problem:
                pytest.skip(watcher.problem)
            if pid := os.fork():
                os.waitpid(pid, 0)
            else:
                os._exit(3)
            pids.add(pid)
            return any(event["kind"] == "exit" and event["pid"] in pids for event in events)

        events = procevents.events(_until(watcher, seen))
    ended = [event for event in events if event.kind == "exit" and event.pid in pids]
    assert ended[0].code == 3 << 8
    assert abs(ended[0].time_ns - time.monotonic_ns()) < 60 * 10**9


def test_how_it_ended_is_told():
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)
        yield {}

    with Watcher(killed) as watcher:
        assert _until(watcher, lambda _: False) == []
        assert watcher.problem == "the watching process ended (signal 9)"
