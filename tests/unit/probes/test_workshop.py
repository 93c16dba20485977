# SPDX-License-Identifier: GPL-2.0-or-later
"""When the workshop opens early, and in what order programs come out of several threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dmabuf_tool.probes import attacher, bpf, cache, plan, source, workshop
from dmabuf_tool.probes.source import Program


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "OBJECTS_DIRECTORY", tmp_path / "objects")
    assert cache.is_empty()
    place = Path(cache.directory())
    assert place == tmp_path / "dmabuf-tool"
    place.mkdir()
    assert cache.is_empty()
    (place / "x.json").touch()
    assert not cache.is_empty()
    (place / "x.json").rename(tmp_path / "x.json")
    assert cache.is_empty()
    (tmp_path / "objects").mkdir()
    (tmp_path / "x.json").rename(tmp_path / "objects/x.json")  # as it comes with the tool
    assert not cache.is_empty()


@pytest.mark.parametrize(("uid", "empty", "opened"), [(0, True, 1), (0, False, 0), (1000, True, 0)])
def test_only_who_will_compile_opens_it_early(
    monkeypatch: pytest.MonkeyPatch, uid: int, empty: bool, opened: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(cache, "is_empty", lambda: empty)
    opens: list[bool] = []
    monkeypatch.setattr(workshop.early, "open", lambda: opens.append(True))
    workshop.open_early()
    assert len(opens) == opened


def jobs(count: int) -> list[tuple[Program, int]]:
    """Programs that are told apart by name."""
    way = plan.Way(plan.HOOKS[0], "fentry", plan.HOOKS[0].functions[0])
    return [(source.Program(f"p{n}", way, False, 0), 0) for n in range(count)]


def test_what_is_loaded_comes_in_order() -> None:
    asked = jobs(40)
    last = threading.Event()

    def load(job: tuple[Program, int]) -> int:
        number = int(job[0].name[1:])
        if number == 0 and (os.cpu_count() or 1) > 1:
            last.wait(10)  # the first is done last
        if number == 39:
            last.set()
        return 1000 + number

    assert list(attacher._in_order(asked, load)) == [(job, 1000 + n) for n, job in enumerate(asked)]


@pytest.mark.parametrize("kind", [bpf.LoadError("no", 22), ValueError("a bug")])
def test_after_a_refusal_nothing_stays_loaded(kind: Exception) -> None:
    """A bug in a thread ends the load as well, as itself."""
    opened: list[int] = []
    taken: list[int] = []

    def load(job: tuple[Program, int]) -> int:
        if job[0].name == "p7":
            raise kind
        opened.append(os.open("/dev/null", os.O_RDONLY))
        return opened[-1]

    wanted = attacher._Refused if isinstance(kind, bpf.LoadError) else ValueError
    with pytest.raises(wanted):
        for _, fd in attacher._in_order(jobs(20), load):
            taken.append(fd)
    assert len(taken) <= 7
    for fd in taken:
        os.close(fd)  # the caller's
    for fd in set(opened) - set(taken):
        with pytest.raises(OSError):
            os.fstat(fd)
