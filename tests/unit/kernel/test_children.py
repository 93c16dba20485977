# SPDX-License-Identifier: GPL-2.0-or-later
"""Forked children are deaf to what stops their parent, from their first moment on."""

import os
import signal
import subprocess
import sys
import time

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


def test_the_parent_hears_again() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        pid = children.fork()
        if not pid:
            time.sleep(60)
            os._exit(1)
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        signal.signal(signal.SIGHUP, before)
