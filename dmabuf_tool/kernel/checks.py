# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine offers a tracer: checks as data, each with a status, a detail and a fix.

A check is a function from a root directory to a `Check`. Some are requirements: `needed` names
what tracing cannot do without, and one check that is not missing satisfies it ("attach" is
satisfied by kprobes or by fentry). Everything else only takes something away, which the detail
names. probes/checks.py adds those that load a program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import bufinfo, distribution, iommu, libraries, symbols
from dmabuf_tool.kernel.text import size

OK: Final = "ok"
DEGRADED: Final = "degraded"
MISSING: Final = "missing"

# The function all attachments pass; every probe plan has it.
PROBED: Final = "dma_buf_dynamic_attach"

# include/uapi/linux/capability.h
_CAPABILITIES: Final = {
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}

# Requirement -> what it means when nothing satisfies it.
REQUIREMENTS: Final = {
    "privilege": "not enough privileges to load probes",
    "dma-buf": "this kernel has no dma-buf",
    "types": "the layout of kernel structs is unknown",
    "libbpf": "libbpf, which reads the kernel's types, is missing",
    "bcc": "the probes are not compiled, and bcc, which does that, is missing",
    "attach": "no way to attach to kernel functions: neither kprobes nor fentry work",
    "lockdown": "lockdown forbids reading kernel memory",
}


@dataclass(frozen=True)
class Check:
    """One line of `doctor`. `fix` is empty where nothing is to be done; `needed` see above."""

    id: str
    what: str
    status: str
    detail: str
    fix: str = ""
    needed: str = ""


def missing_requirements(checks: Iterable[Check]) -> list[str]:
    """List the requirements no check satisfies, in the words of REQUIREMENTS."""
    satisfied: dict[str, bool] = {}
    for check in checks:
        if check.needed:
            satisfied[check.needed] = satisfied.get(check.needed, False) or check.status != MISSING
    return [REQUIREMENTS.get(name, name) for name, done in satisfied.items() if not done]


def run(root: Path = Path("/"), checks: Sequence[Callable[[Path], Check]] = ()) -> list[Check]:
    """Run the checks, all of them unless some are given, in the order they are shown."""
    return [check(root) for check in checks or CHECKS]


def privileges(root: Path) -> Check:
    """Loading BPF needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON (kernel/bpf/syscall.c)."""
    what, held = "privileges", _capabilities(root)
    lost = sorted(_CAPABILITIES.keys() - held)
    if "CAP_SYS_ADMIN" not in held and not {"CAP_BPF", "CAP_PERFMON"} <= held:
        return Check(
            *("privileges", what, MISSING, "no CAP_SYS_ADMIN, nor CAP_BPF and CAP_PERFMON"),
            *("run as root: sudo dmabuf-tool ...", "privilege"),
        )
    if lost:
        return Check(
            *("privileges", what, DEGRADED, f"without {', '.join(lost)}"),
            *("run as root outside of a container", "privilege"),
        )
    return Check("privileges", what, OK, "all that is needed", needed="privilege")


def core(root: Path) -> Check:
    """dma-buf is built in (CONFIG_DMA_SHARED_BUFFER is a bool)."""
    try:
        there = symbols.exists(PROBED, root)
    except OSError as error:
        return Check(
            *("dma-buf", "dma-buf", DEGRADED, f"/proc/kallsyms: {error.strerror}"),
            *("mount /proc", "dma-buf"),
        )
    if not there:
        return Check(
            *("dma-buf", "dma-buf", MISSING, f"no function {PROBED}"),
            *("boot a kernel with CONFIG_DMA_SHARED_BUFFER=y", "dma-buf"),
        )
    return Check("dma-buf", "dma-buf", OK, "built in", needed="dma-buf")


def types(root: Path) -> Check:
    """Struct layouts come from BTF."""
    what, path = "BTF (kernel types)", root / "sys/kernel/btf/vmlinux"
    try:
        return Check("btf", what, OK, size(path.stat().st_size), needed="types")
    except OSError:
        return Check(
            *("btf", what, MISSING, "no /sys/kernel/btf/vmlinux"),
            *("boot a kernel with CONFIG_DEBUG_INFO_BTF=y", "types"),
        )


def bcc(root: Path) -> Check:
    """Import bcc in a process of its own: it is large, and PyPI has another one of that name."""
    found = distribution.bcc_version()
    if found.version is not None:
        return Check("bcc", "bcc", OK, f"version {found.version}", needed="bcc")
    return Check(
        *("bcc", "bcc", MISSING, found.problem, found.fix or distribution.bcc_fix(root)),
        "bcc",
    )


def libbpf(root: Path) -> Check:
    """libbpf reads BTF."""
    try:
        libraries.libbpf()
    except ToolError:
        return Check(
            *("libbpf", "libbpf.so.1", MISSING, "cannot be loaded"),
            *(f"install {distribution.package('libbpf', root)}", "libbpf"),
        )
    return Check("libbpf", "libbpf.so.1", OK, "can be loaded", needed="libbpf")


def lockdown(root: Path) -> Check:
    """Confidentiality mode forbids kprobes and bpf_probe_read_kernel (security/security.c)."""
    directory = root / "sys/kernel/security"
    try:
        text = (directory / "lockdown").read_text(encoding="ascii")
    except OSError:
        if os.path.isdir(directory) and not os.listdir(directory):
            return Check(
                *("lockdown", "lockdown", DEGRADED, "unknown: securityfs is not mounted"),
                *("mount -t securityfs none /sys/kernel/security", "lockdown"),
            )
        return Check("lockdown", "lockdown", OK, "not in this kernel", needed="lockdown")
    mode = text.partition("[")[2].partition("]")[0] or "unknown"
    if mode == "confidentiality":
        return Check(
            *("lockdown", "lockdown", MISSING, mode),
            *("boot with lockdown=integrity or without lockdown=", "lockdown"),
        )
    return Check("lockdown", "lockdown", OK, mode, needed="lockdown")


def addresses(root: Path) -> Check:
    """Whether pages have physical addresses: struct pages are found by a symbol's address."""
    what = "kernel addresses"
    try:
        hidden = symbols.addresses_hidden(root)
    except OSError as error:
        return Check("kptr", what, DEGRADED, f"/proc/kallsyms: {error.strerror}", "mount /proc")
    if hidden:
        return Check(
            *("kptr", what, DEGRADED, "hidden (kptr_restrict): pages have no physical addresses"),
            "sysctl kernel.kptr_restrict=1, and run as root",
        )
    return Check("kptr", what, OK, "shown")


def tracefs(root: Path) -> Check:
    """Where tracepoints describe themselves."""
    for path in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
        # os.path: a directory that may not be searched is False here and an error in pathlib
        if os.path.isdir(root / path / "events"):
            return Check("tracefs", "tracefs", OK, f"/{path}")
    return Check(
        *("tracefs", "tracefs", DEGRADED, "not mounted or not readable"),
        "mount -t tracefs none /sys/kernel/tracing",
    )


def debugfs(root: Path) -> Check:
    """debugfs and bufinfo in it: what `list` and the start of a trace know of attachments."""
    what, found = "bufinfo (debugfs)", bufinfo.read(root)
    if found.status == "ok":
        return Check("bufinfo", what, OK, f"readable, {len(found.buffers)} buffers now")
    fix = {
        "denied": "run as root",
        "timeout": "look for tasks in state D: the lock's owner hangs in a driver",
    }.get(found.status, "mount -t debugfs none /sys/kernel/debug")
    return Check("bufinfo", what, DEGRADED, found.detail.partition(": mount")[0], fix)


def iommus(root: Path) -> Check:
    """Whether level 1 translates."""
    units, groups = iommu.units(root), iommu.groups(root)
    if not units and not groups:
        return Check(
            *("iommu", "IOMMU", DEGRADED, "none: level 1 is physical addresses"),
            "if there is one: enable it in the firmware; boot with intel_iommu=on on Intel",
        )
    kinds = sorted({group.type for group in groups.values() if group.type})
    detail = f"{', '.join(units) or 'no units listed'}; {len(groups)} groups: {', '.join(kinds)}"
    return Check("iommu", "IOMMU", OK, detail)


def swiotlb(root: Path) -> Check:
    """The bounce buffer; slots are 2 KiB (IO_TLB_SIZE, include/linux/swiotlb.h)."""
    what, path = "swiotlb", root / "sys/kernel/debug/swiotlb/io_tlb_nslabs"
    try:
        slots = int(path.read_text(encoding="ascii"))
    except PermissionError:
        return Check("swiotlb", what, DEGRADED, "unknown: debugfs is not readable", "run as root")
    except (OSError, ValueError):
        # debugfs is mounted if anything is in it; a kernel without swiotlb has no directory.
        if os.path.isdir(path.parents[1]) and os.listdir(path.parents[1]):
            return Check("swiotlb", what, OK, "not in this kernel")
        return Check(
            *("swiotlb", what, DEGRADED, "unknown: debugfs is not mounted"),
            "mount -t debugfs none /sys/kernel/debug",
        )
    return Check("swiotlb", what, OK, f"{size(slots * 2048)} of bounce buffers")


def pyroute2(root: Path) -> Check:
    """Device and process events while a trace runs."""
    version = distribution.version_of("pyroute2")
    if version is None:
        return Check(
            *("pyroute2", "pyroute2", DEGRADED, "missing: no device and process events"),
            f"install {distribution.package('pyroute2', root)}",
        )
    return Check("pyroute2", "pyroute2", OK, f"version {version}")


CHECKS: Final[tuple[Callable[[Path], Check], ...]] = (
    *(privileges, core, types, bcc, libbpf, lockdown),
    *(addresses, tracefs, debugfs, iommus, swiotlb, pyroute2),
)


def _capabilities(root: Path) -> set[str]:
    """Read our effective capabilities; all of them where /proc does not say and we are root."""
    try:
        text = (root / "proc/self/status").read_text(encoding="ascii", errors="replace")
        mask = int(text.partition("\nCapEff:")[2].split()[0], 16)
    except (OSError, ValueError, IndexError):
        return set(_CAPABILITIES) if os.geteuid() == 0 else set()
    return {name for name, bit in _CAPABILITIES.items() if mask >> bit & 1}
