# SPDX-License-Identifier: GPL-2.0-or-later
"""What must raise no finding, and then what must: events and findings as JSON Lines; a capture."""

from __future__ import annotations

import shlex

from harness import SHARE, Result, tool, workload


def findings() -> Result:
    """Stock drivers sharing as they should; then scattered buffers for an importer that needs one
    run, and beside it DMA at addresses some time after they were unmapped. The command exits
    with 7."""
    commands = {
        "healthy": workload("healthy.py", "--rounds", "3"),
        "contiguous": workload("vivid_contig.py", "--driver", "--rounds", "2"),
        "faults": workload("late_faults.py", "--logs", str(SHARE / "faults")),
    }
    # In a shell, each with its account in the share.
    healthy, contiguous, faults = (
        f"{shlex.join(one)} > {SHARE / name}.account" for name, one in commands.items()
    )
    play = f"{healthy} && {{ {faults} & {contiguous} && wait $! && exit 7; }}"
    return tool(
        *("trace", "--format", "json", "-f", "-o", str(SHARE / "findings.dmabuf")),
        *("--", "sh", "-c", play),
    )
