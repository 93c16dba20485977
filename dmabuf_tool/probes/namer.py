# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for the addresses of call stacks, looked up in a child process.

Reading kallsyms takes 5 MB and, on a slow machine, seconds: time in which the rings would run
over. So addresses go to a child and names come back when they are ready.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from dmabuf_tool.kernel import symbols
from dmabuf_tool.kernel.watcher import Watcher

_OWN_FRAMES: Final = ("bpf_prog_", "bpf_trampoline_", "bpf_get_stackid", "__bpf_prog_")
_MODULES: Final = Path("/proc/modules")


class Namer:
    """Ask with `ask()`, take what is ready with `answers()`; `close()` ends the child."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._watcher = Watcher(partial(_name, reader), keep=reader)
        os.close(reader)

    def fileno(self) -> int:
        """Readable when there are answers."""
        return self._watcher.fileno()

    def ask(self, key: int, addresses: list[int]) -> None:
        """Have a stack named; `key` comes back with the answer."""
        os.write(self._writer, json.dumps([key, addresses]).encode() + b"\n")

    def answers(self) -> dict[int, tuple[str, ...]]:
        """What is ready: frames by name, innermost first, those of BPF itself left out."""
        return {answer["key"]: tuple(answer["frames"]) for answer in self._watcher.read()}

    @property
    def alive(self) -> bool:
        """Whether answers can still come."""
        return not self._watcher.problem

    def close(self) -> None:
        """End the child."""
        os.close(self._writer)
        self._watcher.close()


def _name(reader: int) -> Iterator[dict[str, Any]]:
    """The child: reads stacks, yields their names; the table is read again as modules change.

    It is first read before anybody asks: a batch waits until its stacks have names.
    """
    known = _loaded(_MODULES.read_text())
    table = symbols.Table.read()
    with open(reader, encoding="ascii") as lines:
        for line in lines:
            key, addresses = json.loads(line)
            loaded = _loaded(_MODULES.read_text())
            if loaded != known:
                table, known = symbols.Table.read(), loaded
            frames = [str(place) if place else "?" for place in table.locate(addresses)]
            yield {"key": key, "frames": [f for f in frames if not f.startswith(_OWN_FRAMES)]}


def _loaded(modules: str) -> frozenset[tuple[str, str]]:
    """Name and address of each module: one that was loaded again has another address."""
    rows = (line.split() for line in modules.splitlines())
    return frozenset((row[0], row[5]) for row in rows if len(row) > 5)
