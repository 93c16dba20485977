# SPDX-License-Identifier: GPL-2.0-or-later
"""A progress bar on stderr, for what takes over a second, on a terminal only."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Final, Self

_AFTER_S: Final = 1.0
_EVERY_S: Final = 0.1
_CELLS: Final = 30


class Progress:
    """`with Progress("reading", total) as bar: bar.at(done)`."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = max(1, total)
        self._shown = False
        self._next = time.monotonic() + _AFTER_S
        self._wanted = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb"}

    def at(self, done: int) -> None:
        """Say how much of the total is done."""
        if not self._wanted or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        self._shown = True
        part = min(1.0, done / self._total)
        bar = "#" * round(part * _CELLS)
        sys.stderr.write(f"\r{self._label} [{bar:<{_CELLS}}] {part:4.0%}")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
