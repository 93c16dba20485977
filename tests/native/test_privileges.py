# SPDX-License-Identifier: GPL-2.0-or-later
"""Rights are given up, and come back only to what is executed."""

import subprocess
import sys

PROGRAM = """
import socket, subprocess
from dmabuf_tool.kernel import privileges

def effective(lines):
    return next(line.split()[1] for line in lines if line.startswith("CapEff"))

print(effective(open("/proc/self/status")))
privileges.drop()
print(effective(open("/proc/self/status")))
try:
    socket.sethostname(socket.gethostname())
except PermissionError:
    print("refused")
command = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True)
print(effective(command.stdout.splitlines()))
"""


def test_what_a_trace_keeps():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, after, refused, command = done.stdout.split()
    kept = 1 << 2 | 1 << 5 | 1 << 19 | 1 << 39
    assert int(before, 16) & kept == kept and int(before, 16) != kept
    assert int(after, 16) == kept
    assert refused == "refused"
    assert command == before
