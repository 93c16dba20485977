# SPDX-License-Identifier: GPL-2.0-or-later
"""Run programs of the host with progress, and the one-line errors of the lab."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class LabError(Exception):
    """Something the user can act on; shown as one line (and the tail of a log where it helps)."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a long step, and say how long it took."""
    print(f"lab: {what} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"lab: {what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def need(program: str, package: str) -> str:
    """The path of a host program; LabError names the package when it is missing."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        raise LabError(f"{program} is missing; apt-get install {package}")
    return found


def run(command: Sequence[str | Path], log: Path | None = None, stdin: bytes = b"") -> bytes:
    """Run to the end and return stdout; LabError with the tail of the output on failure."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if log else subprocess.PIPE,
        check=False,
    )
    if log:
        with log.open("ab") as handle:
            handle.write(done.stdout)
    if done.returncode:
        text = (done.stdout if log else done.stderr or done.stdout).decode(errors="replace")
        tail = "\n  ".join(text.strip().splitlines()[-15:])
        raise LabError(f"{Path(command[0]).name} failed with status {done.returncode}:\n  {tail}")
    return done.stdout
