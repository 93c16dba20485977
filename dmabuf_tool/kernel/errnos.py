# SPDX-License-Identifier: GPL-2.0-or-later
"""Error numbers by the kernel's names."""

from __future__ import annotations

import errno
from typing import Final

# Where Python knows another name of the same number, or none (include/linux/errno.h).
_KERNEL: Final = {
    11: "EAGAIN",
    35: "EDEADLK",
    95: "EOPNOTSUPP",
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    517: "EPROBE_DEFER",
    524: "ENOTSUPP",
}


def errno_name(result: int) -> str:
    """The name of a result, -12 or 12 -> "ENOMEM"; a number without a name as "E4095"."""
    number = abs(result)
    return _KERNEL.get(number) or errno.errorcode.get(number) or f"E{number}"
