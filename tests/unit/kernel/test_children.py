# SPDX-License-Identifier: GPL-2.0-or-later
"""Forked children are deaf to what stops their parent, from their first moment on."""

import os
import signal
import subprocess
import sys

from dmabuf_tool.kernel import children

# A parent that handles signals as a trace does; its children get one in the moment of the fork.
PARENT = """
import os, signal
from dmabuf_tool.kernel import children
signal.signal(signal.SIGINT, lambda *_: os._exit(9))
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
for fork in (children.fork, os.fork):
    pid = fork()
    if not pid:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_signal_in_the_moment_of_the_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT], capture_output=True, text=True, check=False
    )
    # os.fork() shows that the signal comes: the parent's handler ran in the child.
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["7", "9"], "")


def test_the_child_stays_deaf_and_the_parent_hears_again() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    reader, writer = os.pipe()
    try:
        pid = children.fork()
        if not pid:
            status = 1
            try:
                os.close(writer)
                os.read(reader, 1)
                status = 8 if heard else 7
            finally:
                os._exit(status)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        # The child goes on only now, with all signals behind it.
        os.close(writer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        os.close(reader)
        signal.signal(signal.SIGHUP, before)
