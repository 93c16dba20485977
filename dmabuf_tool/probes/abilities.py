# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel lets a tracer do, found out by trying: no version tables, no guesses."""

from __future__ import annotations

import errno
import os
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import bpf
from dmabuf_tool.probes.plan import Abilities

_RETURN_ZERO: Final = bytes.fromhex("b700000000000000 9500000000000000".replace(" ", ""))
"""mov r0, 0; exit"""

_TRIAL: Final = ("dma_buf_detach", "vfs_read")
"""Functions to try fentry on: the first that is in BTF."""


def require_root() -> None:
    """Loading probes needs CAP_BPF and CAP_PERFMON; say so before anything is tried.

    Raises ToolError.
    """
    if os.geteuid() != 0:
        raise ToolError("tracing needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN); use sudo")


def probe(btf: Btf) -> Abilities:
    """Try one program of each kind.

    Raises ToolError where BPF is not allowed at all (not root, lockdown).
    """
    try:
        os.close(bpf.load_program(bpf.PROG_RAW_TRACEPOINT, "trial", _RETURN_ZERO))
    except bpf.LoadError as error:
        if error.errno == errno.EPERM:
            raise ToolError(
                "BPF programs may not be loaded: run as root, and see 'dmabuf-tool doctor'"
                " (kernel lockdown, containers without CAP_BPF)"
            ) from error
        raise
    return Abilities(fentry=_try_fentry(btf), kprobe=bpf.have_kprobes(), raw_tracepoint=True)


def _try_fentry(btf: Btf) -> bool:
    for function in _TRIAL:
        btf_id = btf.function(function)
        if not btf_id:
            continue
        try:
            program = bpf.load_program(
                bpf.PROG_TRACING, "trial", _RETURN_ZERO, bpf.TRACE_FENTRY, btf_id
            )
        except bpf.LoadError:
            return False
        try:
            os.close(bpf.attach_tracing(program))
        except bpf.LoadError:
            return False
        finally:
            os.close(program)
        return True
    return False
