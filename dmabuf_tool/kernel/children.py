# SPDX-License-Identifier: GPL-2.0-or-later
"""What stops the tool is its own to answer, when it can; and no forked child outlives it."""

from __future__ import annotations

import os
import signal
from typing import Final

from dmabuf_tool.kernel.libraries import libc

_PR_SET_PDEATHSIG: Final = 1
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a trace."""


def fork() -> int:
    """As os.fork(); the child ignores what stops its parent, and dies with it.

    Signals are held meanwhile: one that comes before the child ignores it would run the parent's
    handler there, or have Python complain ("Signal 2 ignored due to race condition").
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        pid = os.fork()
        if not pid:
            depend_on(parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def hold_stops() -> None:
    """Have what stops the tool wait, until it can be answered: take_stops()."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def take_stops() -> None:
    """Let come what was held."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def depend_on(parent: int) -> None:
    """Make this process such a child."""
    signal.set_wakeup_fd(-1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the prctl
        os._exit(0)
