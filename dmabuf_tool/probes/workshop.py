# SPDX-License-Identifier: GPL-2.0-or-later
"""Where programs are compiled: processes of their own, because LLVM takes most of a first start.

    who loads  --units-->  the workshop: imports bcc, once  --forks-->  a compiler for each unit

The workshop opens when there is something to compile, or before: importing bcc takes as long as all
that is to be known before there is a text.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import children
from dmabuf_tool.probes import cache

# What else is needed is imported on both sides of the fork: nothing may come before that which can
# come beside it.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dmabuf_tool.probes.objects import Compiled
    from dmabuf_tool.probes.source import Unit

_DIED: Final = "the compiler died (out of memory?)"


class Workshop:
    """Compiles units. It ends with the process that opened it, or by `close()`."""

    def __init__(self) -> None:
        self._pid = 0
        self._orders = self._work = -1

    def open(self) -> None:
        """Start the process, if there is none."""
        if self._pid:
            return
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self._work, work = os.pipe2(os.O_CLOEXEC)
        self._pid = children.fork()
        if not self._pid:
            os.close(self._orders)
            os.close(self._work)
            _compile(orders, work)
        os.close(orders)
        os.close(work)

    def compile(self, units: Sequence[Unit]) -> Compiled:
        """Compile what neither came with the tool nor is in the cache, all units at once.

        Raises ToolError where bcc is missing or refuses the text.
        """
        # Only here: hashing is a megabyte that a process which opens a workshop can do without.
        from dmabuf_tool.probes import objects

        result = objects.Compiled()
        fresh = []
        for unit in units:
            known = objects.load(unit)
            if known is not None:
                result.add(known)
            else:
                fresh.append(unit)
        for unit, compiled in zip(fresh, self.make(fresh), strict=True):
            objects.store(unit, compiled)
            result.add(compiled)
        return result

    def make(self, units: Sequence[Unit]) -> list[Compiled]:
        """Compile, all units at once, whatever there is already. Raises ToolError."""
        from dmabuf_tool.probes import objects

        answers = self._ask(units) if units else []
        for answer in answers:
            if "error" in answer:
                raise ToolError(answer["error"])
        return [objects.Compiled.from_json(answer) for answer in answers]

    def _ask(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        import json

        self.open()
        line = json.dumps([[u.text, u.names, u.flags, list(u.marks.items())] for u in units])
        try:
            with open(self._orders, "w", encoding="ascii", closefd=False) as orders:
                print(line, file=orders)
        except BrokenPipeError as error:
            raise ToolError(_DIED) from error
        with open(self._work, encoding="ascii", closefd=False) as work:
            answers: list[dict[str, Any]] = json.loads(work.readline() or "[]")
        if not answers:
            raise ToolError(_DIED)
        return answers

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._pid:
            os.close(self._orders)
            os.close(self._work)
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


early: Final = Workshop()
"""The workshop of a trace, opened by the command's first lines, or when it is needed."""


def open_early() -> None:
    """Open the trace's workshop for root with an empty cache, who will need it."""
    if os.geteuid() == 0 and cache.is_empty():
        early.open()


def _compile(orders: int, work: int) -> None:
    """The workshop: compile what is ordered until nobody orders any more. Does not return."""
    import json
    from contextlib import suppress

    from dmabuf_tool.probes import compiler

    try:
        with suppress(ToolError):  # each answer says so
            compiler.bcc()
        with open(orders, encoding="ascii") as lines, open(work, "w", encoding="ascii") as answers:
            for line in lines:
                # Every answer is taken before any is judged: no compiler is left behind.
                running = [_start(*unit) for unit in json.loads(line)]
                print(json.dumps([_answer(*one) for one in running]), file=answers, flush=True)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _start(
    text: str, names: Sequence[str], flags: Sequence[str], marks: Sequence[tuple[int, str]]
) -> tuple[int, int]:
    """Fork a compiler; returns the pipe its answer comes through, and its pid."""
    import json

    from dmabuf_tool.probes import compiler
    from dmabuf_tool.probes.source import Unit

    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = children.fork()
    if pid:
        os.close(writer)
        return reader, pid
    try:
        compiler.hide_kallsyms()
        try:
            answer = compiler.compile_one(
                Unit(text, tuple(names), tuple(flags), dict(marks))
            ).to_json()
        except ToolError as error:
            answer = {"error": str(error)}
        except Exception:
            sys.excepthook(*sys.exc_info())
            raise
        with open(writer, "w", encoding="ascii") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def _answer(reader: int, pid: int) -> dict[str, Any]:
    import json

    with open(reader, encoding="ascii") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer: dict[str, Any] = json.loads(text) if text else {"error": _DIED}
    return answer
