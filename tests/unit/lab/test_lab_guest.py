# SPDX-License-Identifier: GPL-2.0-or-later
"""What is handed to a guest arrives exactly, and what comes back is relayed."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from vm import guest
from vm.host import LabError

ARGUMENTS = ["", "a  b", 'it\'s "q"', "$(x) `y` \\ *", "line\nbreak", "ü", os.fsdecode(b"\xff")]


def test_arguments_survive_the_shell(tmp_path: Path) -> None:
    show = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    path = tmp_path / "command"
    path.write_bytes(guest.script([sys.executable, "-c", show, *ARGUMENTS]))
    done = subprocess.run(["sh", path], capture_output=True, check=True)
    assert done.stdout == b"|".join(os.fsencode(argument) for argument in ARGUMENTS)


def test_environment_survives_the_shell(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_bytes(guest.environment({"LAB_A": "it's $HOME", "LAB_B": ""}))
    command = f'. {path}; printf "%s|%s" "$LAB_A" "$LAB_B"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert done.stdout == b"it's $HOME|"


class Fake:
    """A program in the machine's place, with the console and the three ports."""

    def __init__(self, code: str, timeout: float | None = None) -> None:
        pairs = [socket.socketpair() for _ in range(4)]
        self.ours = [a for a, _ in pairs]
        theirs = [b for _, b in pairs]
        numbers = [str(end.fileno()) for end in theirs]
        start = "import os, sys, time; console, out, err, status = map(int, sys.argv[1:]);"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start + code, *numbers],
            pass_fds=[end.fileno() for end in theirs],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for end in theirs:
            end.close()
        self.out, self.err = io.BytesIO(), io.BytesIO()
        self.job = guest.Job(argv=[], package=Path(), timeout=timeout)

    def run(self) -> int:
        try:
            relay = guest.Relay(self.process, self.ours, self.job, self.out, self.err)
            return relay.loop()
        finally:
            self.process.kill()
            self.process.communicate()
            for end in self.ours:
                end.close()


def test_output_and_status_are_relayed() -> None:
    fake = Fake(
        "os.write(out, b'a' * 100000); os.write(err, b'oops'); os.write(status, b'ex');"
        "os.write(status, b'it 7\\n'); time.sleep(60)"
    )
    assert fake.run() == 7
    assert fake.out.getvalue() == b"a" * 100000
    assert fake.err.getvalue() == b"oops"


def test_a_panic_is_named() -> None:
    fake = Fake(r"os.write(console, b'[    1.5] Kernel panic - not syncing: Oops\r\ntrace\r\n')")
    with pytest.raises(LabError, match=r"^Kernel panic - not syncing: Oops; .*\n(.*\n)*  trace$"):
        fake.run()


def test_a_machine_that_does_not_start_says_why() -> None:
    with pytest.raises(LabError, match="not a valid device"):
        Fake("print('not a valid device')").run()


def test_a_timeout_is_named() -> None:
    with pytest.raises(guest.Timeout, match=r"after 0\.1 s"):
        Fake("time.sleep(60)", timeout=0.1).run()
