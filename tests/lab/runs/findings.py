# SPDX-License-Identifier: GPL-2.0-or-later
"""What must raise findings, and what must not: events and findings as JSON Lines, and a capture."""

from __future__ import annotations

import shlex

from harness import SHARE, Result, tool, workload


def healthy() -> Result:
    """Stock drivers sharing as they should."""
    return _traced("healthy", f"exec {_words(workload('healthy.py', '--rounds', '3'), 'healthy')}")


def unhealthy() -> Result:
    """Scattered buffers for an importer that needs one run, then DMA at addresses some time after
    they were unmapped; the command exits with 7."""
    scattered = workload("vivid_contig.py", "--driver", "--rounds", "2")
    faults = workload("late_faults.py", "--logs", str(SHARE / "faults"))
    both = f"{_words(scattered, 'contiguous')} && {_words(faults, 'faults')}"
    return _traced("unhealthy", f"{both} && exit 7")


def _words(command: list[str], name: str) -> str:
    """In a shell, with its account in the share."""
    return f"{shlex.join(command)} > {SHARE / name}.account"


def _traced(name: str, command: str) -> Result:
    capture = str(SHARE / f"{name}.dmabuf")
    return tool("trace", "--format", "json", "-f", "-o", capture, "--", "sh", "-c", command)
