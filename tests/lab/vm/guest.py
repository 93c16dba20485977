# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: start the machine, relay what it writes, return the command's status, leave nothing."""

import os
import selectors
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from . import cache, initrd
from .host import LabError, need
from .qemu import MACHINES, PACKAGES, Machine, command

SCRIPTS = cache.PROJECT / "tests/lab/guest"

ENVIRONMENT = {
    "PATH": "/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONPATH": "/lab/python",
    "PYTHONDONTWRITEBYTECODE": "1",
}

CONSOLE_KEPT = 1 << 16  # bytes, enough for an oops and what led to it


class Timeout(LabError):
    """The run took longer than it was given."""


@dataclass(frozen=True)
class Job:
    """What a guest is to do."""

    argv: Sequence[str]
    package: Path
    modules: Path | None = None
    share: bool = False
    timeout: float | None = None  # seconds, from the start of the machine
    console: bool = False  # show the kernel's console on stderr


def script(argv: Sequence[str]) -> bytes:
    """A shell script that runs exactly `argv`."""
    return b"#!/bin/sh\nexec " + os.fsencode(shlex.join(argv)) + b"\n"


def environment(variables: Mapping[str, str]) -> bytes:
    """A shell script, to be sourced, that sets exactly `variables`."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    return "".join(lines).encode()


def archive(job: Job) -> bytes:
    """The files of a run, to be appended to the base initrd."""
    files = initrd.Archive()
    files.add("init", (SCRIPTS / "initrd-init").read_bytes(), 0o755)
    files.add("lab/init", (SCRIPTS / "init").read_bytes(), 0o755)
    files.add("lab/bin/dmabuf-tool", (SCRIPTS / "dmabuf-tool").read_bytes(), 0o755)
    files.add("lab/command", script(job.argv), 0o755)
    files.add("lab/environment", environment(ENVIRONMENT))
    files.directory("lab/modules")
    if job.share:
        files.add("lab/share", b"")
    trees = {"lab/python": job.package}
    if job.modules:
        trees["lab/modules"] = job.modules
    for target, top in trees.items():
        for path in sorted(top.rglob("*")):
            if path.is_file():
                files.add(f"{target}/{path.relative_to(top)}", path.read_bytes())
    return files.finish()


def run(machine: Machine, job: Job, stdout: BinaryIO, stderr: BinaryIO) -> int:
    """Boot `machine`, do `job`, and return the exit status of its command."""
    program = MACHINES[machine.arch][0]
    need(program, PACKAGES[machine.arch])
    with ExitStack() as stack:
        # In memory: nothing to clean up, however this ends.
        whole = stack.enter_context(open(os.memfd_create("initrd"), "wb"))
        whole.write(machine.initrd.read_bytes() + archive(job))
        whole.flush()
        pairs = [socket.socketpair() for _ in range(4)]
        ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
        for end in ours:
            stack.enter_context(end)
        console, out, err, status = (end.fileno() for end in theirs)
        whole_path = Path(f"/proc/self/fd/{whole.fileno()}")
        argv = command(replace(machine, initrd=whole_path), console, (out, err, status))
        # setpriv: should this program be killed, the machine dies with it.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            pass_fds=[whole.fileno(), console, out, err, status],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, process)
        for end in theirs:
            end.close()
        return Relay(process, ours, job, stdout, stderr).loop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


class Relay:
    """Carries the guest's output until its status comes or the machine ends."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ends: Sequence[socket.socket],
        job: Job,
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> None:
        self._process = process
        self._deadline = time.monotonic() + job.timeout if job.timeout else None
        self._timeout = job.timeout
        self._console = b""
        self._status = b""
        console, out, err, status = ends
        self._selector = selectors.DefaultSelector()
        register = self._selector.register
        register(console, selectors.EVENT_READ, self._keeper(stderr if job.console else None))
        register(out, selectors.EVENT_READ, _writer(stdout))
        register(err, selectors.EVENT_READ, _writer(stderr))
        register(status, selectors.EVENT_READ, self._on_status)
        assert process.stdout
        register(process.stdout, selectors.EVENT_READ, self._keeper(None))

    def loop(self) -> int:
        """Relay until the end; the status, or LabError with the tail of the console."""
        while not self._status.endswith(b"\n") and self._selector.get_map():
            self._once(self._left())
        self._process.kill()
        while self._selector.get_map():
            self._once(None)
        if not self._status.endswith(b"\n"):
            raise LabError(self._why())
        return int(self._status.split()[1])

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"the guest was ended after {self._timeout:g} s (--timeout)")
        return left

    def _once(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            try:
                data = os.read(key.fd, 1 << 16)
            except ConnectionResetError:
                data = b""
            if data:
                key.data(data)
            else:
                self._selector.unregister(key.fileobj)

    def _keeper(self, also: BinaryIO | None) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self._console = (self._console + data)[-CONSOLE_KEPT:]
            if also:
                _writer(also)(data)

        return keep

    def _on_status(self, data: bytes) -> None:
        self._status += data

    def _why(self) -> str:
        lines = self._console.decode(errors="replace").replace("\r", "").splitlines()
        panic = [line for line in lines if "Kernel panic" in line]
        what = panic[0].split("] ", 1)[-1] if panic else "the machine ended without a status"
        return "\n  ".join([f"{what}; the console's last lines:", *lines[-40:]])


def _writer(stream: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write
