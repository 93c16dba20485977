# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults some time after unmaps, under a live trace: what it says of each, and when."""

from __future__ import annotations

import os
import subprocess
import time

from harness import SHARE, Result, workload


def faults_late() -> Result:
    """The capture, the trace's lines and the driver's logs go to the share; with when each fault's
    line came."""
    command = [
        *("dmabuf-tool", "trace", "--format", "json", "-f", "-o", str(SHARE / "faults.dmabuf")),
        *("--", "sh", "-c", f'exec > {SHARE}/faults.account; exec "$@"', "sh"),
        *workload("late_faults.py", "--logs", str(SHARE / "faults")),
    ]
    told: list[int] = []
    with (
        (SHARE / "faults.json").open("wb") as lines,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout and process.stderr
        for line in process.stdout:
            if b'"event":"fault"' in line:
                told.append(time.monotonic_ns())
            lines.write(line)
        words = process.stderr.read().decode()
    os.sync()
    return {"status": process.returncode, "stderr": words, "told_ns": told}
