# SPDX-License-Identifier: GPL-2.0-or-later
"""What must raise findings, and what must not: events and findings as JSON Lines, and a capture."""

from __future__ import annotations

from harness import SHARE, Result, tool, workload


def healthy() -> Result:
    """Stock drivers sharing as they should."""
    return _traced("healthy", workload("healthy.py", "--rounds", "3"))


def contiguous() -> Result:
    """Scattered buffers for an importer that needs one run; the command exits with 7."""
    command = " ".join(workload("vivid_contig.py", "--driver", "--rounds", "2"))
    return _traced("contiguous", ["sh", "-c", f"{command} && exit 7"])


def _traced(name: str, command: list[str]) -> Result:
    """The command's words come first in stdout, before the events or among them."""
    capture = str(SHARE / f"{name}.dmabuf")
    words = f'exec > {SHARE}/{name}.account; exec "$@"'
    return tool(
        *("trace", "--format", "json", "-f", "-o", capture, "--", "sh", "-c", words, "sh"), *command
    )
