# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tracing process may do."""

from __future__ import annotations

import os

from dmabuf_tool.errors import ToolError


def require_root() -> None:
    """Loading probes needs CAP_BPF and CAP_PERFMON; say so before anything is tried.

    Raises ToolError.
    """
    if os.geteuid() != 0:
        raise ToolError("tracing needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN); use sudo")
