# SPDX-License-Identifier: GPL-2.0-or-later
"""Random legal operations on both levels under a trace with stacks; the driver's log and tables
beside it."""

from __future__ import annotations

from harness import SHARE, Result, lab, tool, workload

OPERATIONS = 5000


def levels() -> Result:
    """The capture, the log and the tables go to the share."""
    lab.load_vm()  # before the trace, so that GPU VMs are seen whenever it attaches to modules
    files = ("--log", str(SHARE / "levels.log"), "--tables", str(SHARE / "levels.tables"))
    return tool(
        *("trace", "--stacks", "-f", "-o", str(SHARE / "levels.dmabuf"), "--"),
        *workload("random_levels.py", "--operations", str(OPERATIONS), *files),
    )
