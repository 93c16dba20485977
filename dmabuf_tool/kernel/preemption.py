# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether kernel code can be preempted.

It decides how to hook: a BPF trampoline (fentry) runs its program preemptibly and skips it when
another task on the same CPU was preempted inside it (prog->active in __bpf_prog_enter_recur(),
kernel/bpf/trampoline.c), so that calls would go unseen: programs have twins there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_DEBUG = Path("sys/kernel/debug/sched/preempt")


def model(root: Path = Path("/")) -> str:
    """none, voluntary, full, lazy, rt, or "" where it cannot be told.

    PREEMPT_DYNAMIC kernels show the active one in parentheses (Linux 5.12: 826bfeb37bb4
    ("preempt/dynamic: Support dynamic preempt with preempt= boot option")).
    """
    try:
        active = re.search(r"\((\w+)\)", (root / _DEBUG).read_text(encoding="ascii"))
    except OSError:
        active = None
    if active:
        return active[1]
    version = os.uname().version
    for word, name in (("PREEMPT_RT", "rt"), ("PREEMPT_DYNAMIC", ""), ("PREEMPT_LAZY", "lazy")):
        if word in version:
            return name
    return "full" if "PREEMPT" in version else "none"


def preemptible(root: Path = Path("/")) -> bool:
    """Whether it must be reckoned with: where it cannot be told, it must."""
    return model(root) not in ("none", "voluntary")
