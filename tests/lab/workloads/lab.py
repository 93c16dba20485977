# SPDX-License-Identifier: GPL-2.0-or-later
"""The test driver's client: /dev/dmabuf_lab from Python.

Mirrors tests/lab/module/dmabuf_lab.h. `Lab` is one open file of the driver; what was made
through it is undone (and logged) when it is closed. The log is read with `log()`; the
driver's own account of what it did, a dict per call in the order of their returns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import uapi
from report import Account

NODE = Path("/dev/dmabuf_lab")
DEBUGFS = Path("/sys/kernel/debug/dmabuf_lab")
MODULES = Path(os.environ.get("DMABUF_LAB_MODULES", "/lab/modules"))


class Op(IntEnum):
    INFO = 0
    DEVICE = 1
    PLATFORM = 2
    PLATFORM_DESTROY = 3
    EXPORT = 10
    MOVE = 11
    CPU_BEGIN = 12
    CPU_END = 13
    ATTACH = 20
    DETACH = 21
    PIN = 22
    UNPIN = 23
    MAP = 24
    UNMAP = 25
    MAP_LOOP = 26
    CONTEXT_CREATE = 30
    CONTEXT_FREE = 31
    CONTEXT_ATTACH = 32
    CONTEXT_DETACH = 33
    L2_MAP = 34
    L2_UNMAP = 35
    EDU_DMA = 36
    MARK = 40
    LOG_CLEAR = 41
    RESET = 42


class F(IntFlag):
    DYNAMIC = 1 << 0
    P2P = 1 << 1
    LEAK = 1 << 2
    FORCE = 1 << 3
    CACHE_SGT = 1 << 4
    DMA32 = 1 << 5
    SKIP_SYNC = 1 << 6
    FAIL_NULL = 1 << 7
    DELAY_ATTACH = 1 << 8
    DELAY_RELEASE = 1 << 9
    ONE_RUN = 1 << 10
    NEW_PAGES = 1 << 11
    NO_NOTIFY = 1 << 12
    NO_PARMS = 1 << 13
    COHERENT = 1 << 14
    IGNORE_MOVE = 1 << 15
    UNALIGNED = 1 << 16
    BY_BUS = 1 << 17


class Shape(IntEnum):
    HONEST = 0
    LONG = 1
    BOUNDARY = 2
    BEYOND_MASK = 3
    MISALIGNED = 4
    SHORT = 5
    PAGELESS = 6
    MANY_RUNS = 7
    UNTRANSLATED = 8
    BAR = 9


class Fail(IntEnum):
    NONE = 0
    ATTACH = 1
    MAP = 2
    PIN = 3


class Kind(IntEnum):
    NONE = 0
    EDU = 1
    PLATFORM = 2
    DOMAIN = 3
    GPUVM = 4


class Source(IntEnum):
    DMA = 0
    PAGES = 1


class Dir(IntEnum):
    BIDIRECTIONAL = 0
    TO_DEVICE = 1
    FROM_DEVICE = 2


_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class Req(ctypes.Structure):
    """struct lab_req."""

    _fields_ = [
        ("op", _U32),
        ("flags", _U32),
        ("fd", ctypes.c_int32),
        ("device", _U32),
        ("attachment", _U32),
        ("map", _U32),
        ("context", _U32),
        ("direction", _U32),
        ("kind", _U32),
        ("source", _U32),
        ("shape", _U32),
        ("fail_step", _U32),
        ("fail_error", _U32),
        ("fail_count", _U32),
        ("delay_ms", _U32),
        ("run_pages", _U32),
        ("mask_bits", _U32),
        ("max_seg", _U32),
        ("min_align", _U32),
        ("count", _U32),
        ("boundary", _U64),
        ("limit", _U64),
        ("size", _U64),
        ("offset", _U64),
        ("va", _U64),
        ("addr", _U64),
        ("ino", _U64),
        ("ns", _U64),
        ("dma_addr", _U64),
        ("dma_len", _U64),
        ("dma_sum", _U64),
        ("nents", _U32),
        ("orig_nents", _U32),
        ("version", _U32),
        ("reserved", _U32),
        ("name", ctypes.c_char * 32),
    ]


REQUEST = uapi.iowr("L", 1, ctypes.sizeof(Req))


@dataclass(frozen=True)
class Device:
    """A slot of the driver's device table, with the limits the kernel reports for it."""

    nr: int
    name: str
    kind: Kind
    dma_mask: int
    max_segment_size: int
    segment_boundary_mask: int
    min_align_mask: int
    bus_dma_limit: int
    users: int


@dataclass(frozen=True)
class Mapping:
    """What MAP returned: the map's number and its table in short."""

    nr: int
    nents: int
    orig_nents: int
    dma_addr: int
    dma_len: int
    dma_sum: int
    ns: int


def load(**params: int) -> None:
    """Loads the driver unless it is there. params: log_capacity, edu_mask_bits, log_callbacks."""
    if not NODE.exists():
        args = [f"{key}={value}" for key, value in params.items()]
        subprocess.run(["insmod", str(MODULES / "dmabuf_lab.ko"), *args], check=True)


def load_vm() -> bool:
    """Loads the drm_gpuvm part; False where the kernel has no drm_gpuvm."""
    path = MODULES / "dmabuf_lab_vm.ko"
    if not path.exists():
        return False
    if not Path("/sys/module/dmabuf_lab_vm").exists():
        subprocess.run(["modprobe", "drm_gpuvm"], check=True)
        subprocess.run(["insmod", str(path)], check=True)
    return True


def log() -> list[dict[str, Any]]:
    """The driver's log so far."""
    lines = (DEBUGFS / "log").read_text().splitlines()
    found: list[dict[str, Any]] = json.loads(f"[{','.join(lines)}]")  # at once: seconds less
    return found


def copy_log(path: Path | str) -> int:
    """Writes the log to a file, as it is; returns the number of lines."""
    return _copy("log", path)


def copy_faults(path: Path | str) -> int:
    """Writes down when faults were told; returns how many."""
    return _copy("faults", path)


def _copy(name: str, path: Path | str) -> int:
    text = (DEBUGFS / name).read_text()
    Path(path).write_text(text)
    return text.count("\n")


class Lab:
    """One open file of the driver. Every method raises OSError with the kernel's errno."""

    def __init__(self) -> None:
        load()
        self.fd = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def call(self, op: Op, **fields: int) -> Req:
        """One ioctl; the struct as the driver left it."""
        req = Req(op=op, **{key: int(value) for key, value in fields.items()})
        fcntl.ioctl(self.fd, REQUEST, req)
        return req

    # ---- devices ----

    def devices(self) -> list[Device]:
        """All devices, in the order of their numbers; the edu devices come first."""
        found = []
        for nr in range(self.call(Op.INFO).count):
            try:
                q = self.call(Op.DEVICE, device=nr)
            except OSError as e:
                if e.errno != errno.ENODEV:
                    raise
                continue
            found.append(
                Device(
                    nr=nr,
                    name=q.name.decode(),
                    kind=Kind(q.kind),
                    dma_mask=q.addr,
                    max_segment_size=q.max_seg,
                    segment_boundary_mask=q.boundary,
                    min_align_mask=q.min_align,
                    bus_dma_limit=q.limit,
                    users=q.count,
                )
            )
        return found

    def edu(self) -> list[int]:
        """Numbers of the edu devices."""
        return [d.nr for d in self.devices() if d.kind == Kind.EDU]

    def platform(
        self,
        mask_bits: int = 64,
        max_seg: int = 0,
        boundary: int = 0,
        min_align: int = 0,
        limit: int = 0,
        flags: int = 0,
    ) -> int:
        """Makes a platform device with these limits; its number."""
        q = self.call(
            Op.PLATFORM,
            mask_bits=mask_bits,
            max_seg=max_seg,
            boundary=boundary,
            min_align=min_align,
            limit=limit,
            flags=flags,
        )
        return int(q.device)

    def platform_destroy(self, device: int) -> None:
        self.call(Op.PLATFORM_DESTROY, device=device)

    # ---- buffers ----

    def export(self, size: int, run_pages: int = 1, flags: int = 0, **fields: int) -> int:
        """An own buffer of size bytes in runs of run_pages pages (0: one run); its fd.

        fields: shape, fail_step, fail_error, fail_count, delay_ms; device, with F.P2P: an edu,
        whose memory the buffer plays.
        """
        q = self.call(Op.EXPORT, size=size, run_pages=run_pages, flags=flags, **fields)
        return int(q.fd)

    def move(self, fd: int, flags: int = 0) -> None:
        self.call(Op.MOVE, fd=fd, flags=flags)

    def cpu_begin(self, fd: int, direction: int = Dir.BIDIRECTIONAL) -> None:
        self.call(Op.CPU_BEGIN, fd=fd, direction=direction)

    def cpu_end(self, fd: int, direction: int = Dir.BIDIRECTIONAL) -> None:
        self.call(Op.CPU_END, fd=fd, direction=direction)

    # ---- importer ----

    def attach(self, fd: int, device: int, flags: int = 0) -> int:
        return int(self.call(Op.ATTACH, fd=fd, device=device, flags=flags).attachment)

    def detach(self, attachment: int, flags: int = 0) -> None:
        self.call(Op.DETACH, attachment=attachment, flags=flags)

    def pin(self, attachment: int) -> None:
        self.call(Op.PIN, attachment=attachment)

    def unpin(self, attachment: int) -> None:
        self.call(Op.UNPIN, attachment=attachment)

    def map(self, attachment: int, direction: int = Dir.BIDIRECTIONAL, flags: int = 0) -> Mapping:
        q = self.call(Op.MAP, attachment=attachment, direction=direction, flags=flags)
        return Mapping(q.map, q.nents, q.orig_nents, q.dma_addr, q.dma_len, q.dma_sum, q.ns)

    def unmap(self, map_nr: int) -> None:
        self.call(Op.UNMAP, map=map_nr)

    def map_loop(
        self, attachment: int, count: int, direction: int = Dir.BIDIRECTIONAL
    ) -> tuple[int, int]:
        """count map/unmap pairs inside the kernel; (pairs done, ns in all)."""
        q = self.call(Op.MAP_LOOP, attachment=attachment, count=count, direction=direction)
        return int(q.count), int(q.ns)

    # ---- contexts ----

    def context(self, kind: int, device: int, flags: int = 0) -> int:
        return int(self.call(Op.CONTEXT_CREATE, kind=kind, device=device, flags=flags).context)

    def context_free(self, context: int) -> None:
        self.call(Op.CONTEXT_FREE, context=context)

    def context_attach(self, context: int) -> None:
        self.call(Op.CONTEXT_ATTACH, context=context)

    def context_detach(self, context: int) -> None:
        self.call(Op.CONTEXT_DETACH, context=context)

    def level2_map(
        self,
        context: int,
        map_nr: int,
        va: int,
        source: int = Source.DMA,
        offset: int = 0,
        size: int = 0,
        flags: int = 0,
    ) -> int:
        """Maps size bytes (0: the rest) of a mapping at va; returns the bytes mapped."""
        q = self.call(
            Op.L2_MAP,
            context=context,
            map=map_nr,
            va=va,
            source=source,
            offset=offset,
            size=size,
            flags=flags,
        )
        return int(q.size)

    def level2_unmap(self, context: int, va: int, size: int, flags: int = 0) -> int:
        """Unmaps a range; returns the bytes unmapped."""
        q = self.call(Op.L2_UNMAP, context=context, va=va, size=size, flags=flags)
        return int(q.size)

    def edu_read(self, device: int, addr: int, size: int = 4096) -> None:
        """The device reads memory at a DMA address into its buffer."""
        self.call(Op.EDU_DMA, device=device, addr=addr, size=size, direction=Dir.TO_DEVICE)

    def edu_write(self, device: int, addr: int, size: int = 4096) -> None:
        """The device writes its buffer to memory at a DMA address."""
        self.call(Op.EDU_DMA, device=device, addr=addr, size=size, direction=Dir.FROM_DEVICE)

    # ---- log ----

    def mark(self, number: int) -> None:
        self.call(Op.MARK, count=number)

    def clear_log(self) -> None:
        self.call(Op.LOG_CLEAR)

    def reset(self) -> None:
        """Undoes everything of everybody: attachments, contexts, leaks, platform devices."""
        self.call(Op.RESET)


def settle(account: Account, keep: str | None) -> list[dict[str, Any]]:
    """Put the log's counts into an account, and keep a copy of it if a path is given; the log."""
    lines = log()
    account.facts["log"] = counts(lines)
    if keep:
        account.facts["log_lines"] = copy_log(keep)
    return lines


def counts(lines: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Lines per operation; those that failed are counted as "OP failed"."""
    result: dict[str, int] = {}
    for line in lines:
        key = line["op"] if line["result"] == 0 else f"{line['op']} failed"
        result[key] = result.get(key, 0) + 1
    return dict(sorted(result.items()))
