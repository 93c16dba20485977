# SPDX-License-Identifier: GPL-2.0-or-later
"""Where built things live: outside the checkout, keyed by what went into them.

Everything is made beside its place and renamed into it, under a lock, so that parallel runs
neither clash nor see half a thing.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Small trees that change with the checkout go after a day: another run may just be reading one.
DAY = 86400.0

PROJECT = Path(__file__).resolve().parents[3]


def root() -> Path:
    """The lab's cache directory: $DMABUF_TOOL_CACHE, or dmabuf-tool in the XDG cache directory."""
    if own := os.environ.get("DMABUF_TOOL_CACHE"):
        base = Path(own)
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmabuf-tool"
    return base.absolute() / "lab"


def digest(*parts: str | bytes | Path) -> str:
    """Twelve hex digits over strings, files and directory trees (names, modes and contents)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for path in files(part):
                total.update(f"{path.relative_to(part)}\0{path.stat().st_mode:o}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()[:12]


def files(top: Path) -> list[Path]:
    """The files under `top` (or `top` itself) that count as sources, in a stable order."""
    if top.is_file():
        return [top]
    return [
        path
        for path in sorted(top.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    ]


@contextmanager
def lock(name: str, shared: bool = False) -> Iterator[None]:
    """Hold the named lock; says so when it has to wait for another run."""
    path = root() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"lab: waiting for another run ({name})", file=sys.stderr, flush=True)
            fcntl.flock(handle, kind)
        yield


@contextmanager
def building(place: Path) -> Iterator[Path]:
    """A fresh directory that becomes `place` if the body succeeds and vanishes if it does not.

    To be used under a lock: a leftover of a run that died is removed first.
    """
    work = place.with_name(place.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        work.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def in_use(place: Path) -> Iterator[None]:
    """Keep `prune` away from `place`."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def prune(parent: Path, prefix: str, keep: str, age: float = 0) -> None:
    """Remove the entries `prefix*` of `parent` older than `age` seconds, but not what is in use.

    `keep` names the entry that stays in any case.
    """
    for place in parent.glob(f"{prefix}*"):
        if place.name == keep or not place.is_dir() or time.time() - place.stat().st_mtime < age:
            continue
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(descriptor)
