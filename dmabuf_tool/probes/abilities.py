# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel lets a tracer do, found out by trying: no version tables, no guesses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import preemption
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import bpf, links
from dmabuf_tool.probes.plan import Abilities

_RETURN_ZERO: Final = bytes.fromhex("b700000000000000 9500000000000000".replace(" ", ""))
"""mov r0, 0; exit"""

_TRIAL: Final = ("dma_buf_detach", "vfs_read")
"""Functions to try fentry on: the first that is in BTF."""


def probe(btf: Btf, *, all_methods: bool = True) -> Abilities:
    """Try one program of each kind. Without `all_methods` only those that a plan will ask for:
    where fentry is all it needs, others are taken to work, and whoever attaches by them finds out.

    Raises ToolError where BPF is not allowed at all (not root, lockdown).
    """
    try:
        try_raw_tracepoint()
    except bpf.LoadError as error:
        if error.errno == errno.EPERM:
            raise ToolError(
                "BPF programs may not be loaded: run as root, and see 'dmabuf-tool doctor'"
                " (kernel lockdown, containers without CAP_BPF)"
            ) from error
        raise
    fentry, preemptible = _works(lambda: try_fentry(btf)), preemption.preemptible()
    taken = fentry and not preemptible and not all_methods
    return Abilities(
        fentry=fentry,
        kprobe_multi=taken or _works(lambda: try_kprobe_multi(btf)),
        kprobe=links.have_kprobes(),
        raw_tracepoint=True,
        preemptible=preemptible,
    )


def try_raw_tracepoint() -> None:
    """Attach the simplest of programs. Raises LoadError."""
    _attach(lambda fd: links.attach_raw_tracepoint(fd, "sched_switch"), bpf.PROG_RAW_TRACEPOINT)


def try_fentry(btf: Btf) -> None:
    """Attach a trampoline. Raises ToolError."""
    btf_id = btf.function(trial_function(btf))
    _attach(links.attach_tracing, bpf.PROG_TRACING, bpf.TRACE_FENTRY, btf_id)


def try_kprobe_multi(btf: Btf) -> None:
    """Attach an fprobe, at return: arm64 before 6.14 can do it at entry only.

    Raises ToolError.
    """
    function = trial_function(btf)
    _attach(
        lambda fd: links.attach_kprobe_multi(fd, function, at_return=True),
        bpf.PROG_KPROBE,
        bpf.TRACE_KPROBE_MULTI,
    )


def try_kprobe(btf: Btf) -> None:
    """Set a kprobe. Raises ToolError."""
    if not links.have_kprobes():
        raise ToolError("this kernel has no kprobe events")
    function = trial_function(btf)
    _attach(lambda fd: links.attach_kprobe(fd, function, at_return=False), bpf.PROG_KPROBE)


def trial_function(btf: Btf) -> str:
    """The function that trials hook. Raises ToolError where BTF has none of them."""
    for name in _TRIAL:
        if btf.function(name):
            return name
    raise ToolError(f"BTF knows none of {', '.join(_TRIAL)}")


def _attach(attach: Callable[[int], int], kind: int, attach_type: int = 0, btf_id: int = 0) -> None:
    """Load a program of two instructions, attach it, and remove both."""
    program = bpf.load_program(kind, "trial", _RETURN_ZERO, {}, attach_type, btf_id)
    try:
        os.close(attach(program))
    finally:
        os.close(program)


def _works(trial: Callable[[], None]) -> bool:
    try:
        trial()
    except ToolError:
        return False
    return True
