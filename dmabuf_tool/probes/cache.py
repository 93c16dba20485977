# SPDX-License-Identifier: GPL-2.0-or-later
"""Where compiled programs are kept (objects.py)."""

from __future__ import annotations

import os


def directory() -> str:
    """$XDG_CACHE_HOME; without it /var/cache for root.

    Another user's directory does no harm: what is not owned by who loads is not read.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = "/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache")
    return os.path.join(base, "dmabuf-tool")


def is_empty() -> bool:
    """Whether nothing was kept yet."""
    try:
        return not os.listdir(directory())
    except OSError:
        return True
