# SPDX-License-Identifier: GPL-2.0-or-later
"""Where compiled programs are kept (objects.py)."""

from __future__ import annotations

import os
from typing import Final

from dmabuf_tool.probes.texts import BPF_DIRECTORY

OBJECTS_DIRECTORY: Final = BPF_DIRECTORY / "objects"
"""What came with the tool."""


def directory() -> str:
    """$XDG_CACHE_HOME; without it /var/cache for root.

    Another user's directory does no harm: what is not owned by who loads is not read.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = "/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache")
    return os.path.join(base, "dmabuf-tool")


def is_empty() -> bool:
    """Whether nothing came with the tool, and nothing was kept yet."""
    return not (_files(OBJECTS_DIRECTORY) or _files(directory()))


def _files(place: str | os.PathLike[str]) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []
