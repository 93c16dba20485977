# SPDX-License-Identifier: GPL-2.0-or-later
"""In a guest: how long a trace takes to begin, first and again, and where it has to compile; and
its memory after a workload."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

OPERATIONS = [
    *(sys.executable, "/project/tests/lab/workloads/random_ops.py", "--operations", "6000"),
]
# The command's parent is the tracer.
THEN_LOOK = 'parent=$PPID; "$@" > /dev/null; cat /proc/$parent/status > /tmp/status'


INSTALLED = ("dmabuf-tool",)
UNCOMPILED = (sys.executable, "/project/tests/bench/uncompiled.py")


def trace(*command: str, tool: tuple[str, ...] = INSTALLED) -> float:
    """Seconds to "tracing"."""
    done = subprocess.run(
        [*tool, "trace", "-f", "-o", "/tmp/x.dmabuf", "--", *command],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = re.search(r"ready after ([0-9.]+) s", done.stderr)
    assert found, done.stderr
    return float(found[1])


def main() -> None:
    """Prints one JSON object."""
    subprocess.run(["insmod", "/lab/modules/dmabuf_lab.ko"], check=True)
    first = trace("true")
    again = trace("sh", "-c", THEN_LOOK, "sh", *OPERATIONS)
    status = Path("/tmp/status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    compiling = trace("true", tool=UNCOMPILED)
    result = {"first_s": first, "again_s": again, "compiling_s": compiling}
    print(json.dumps({**result, "rss_kib": int(rss.split()[1])}))


main()
