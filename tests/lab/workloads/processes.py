# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of a workload."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def fork(what: Callable[..., None], *arguments: object) -> int:
    """A process that does this and ends, with status 0 if it came to its end; its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        what(*arguments)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)
