# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for the addresses of call stacks, looked up in a child process.

Reading kallsyms takes 5 MB and, on a slow machine, seconds: time in which the rings would run
over. So addresses go to a child and names come back when they are ready.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from dmabuf_tool.kernel import symbols
from dmabuf_tool.kernel.watcher import Watcher

_OWN_FRAMES: Final = ("bpf_prog_", "bpf_trampoline_", "bpf_get_stackid", "__bpf_prog_")


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
        with contextlib.suppress(BrokenPipeError):  # it has ended: see `problem`
            os.write(self._writer, json.dumps([key, addresses]).encode() + b"\n")

    def answers(self) -> dict[int, tuple[str, ...]]:
        """What is ready: frames by name, innermost first, those of BPF itself left out."""
        return {answer["key"]: tuple(answer["frames"]) for answer in self._watcher.read()}

    @property
    def problem(self) -> str:
        """Why no answers will come; "" while they can."""
        return self._watcher.problem

    def close(self) -> None:
        """End the child."""
        os.close(self._writer)
        self._watcher.close()


def _name(reader: int) -> Iterator[dict[str, Any]]:
    """The child: reads stacks, yields their names.

    The table is read at once, because what is behind an unnamed stack waits for it; and again for
    a stack through a module that it does not know.
    """
    known, table = symbols.modules(), symbols.Table.read()
    with open(reader, encoding="ascii") as lines:
        for line in lines:
            key, addresses = json.loads(line)
            loaded = symbols.modules()
            if any(map(_fresh(known, loaded), addresses)):
                known, table = loaded, symbols.Table.read()
            frames = [str(place) if place else "?" for place in table.locate(addresses)]
            yield {"key": key, "frames": [f for f in frames if not f.startswith(_OWN_FRAMES)]}


def _fresh(
    known: dict[str, symbols.Module], loaded: dict[str, symbols.Module]
) -> Callable[[int], bool]:
    """Whether an address is in a module that came since: one that was loaded again lies elsewhere,
    or comes to lie where another was."""
    places = [
        (one.address, one.address + one.size)
        for name, one in loaded.items()
        if name not in known or known[name].address != one.address
    ]
    return lambda address: any(low <= address < high for low, high in places)
