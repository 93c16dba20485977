# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/fd, fdinfo and maps: which processes hold which dma-bufs, and which DRM clients.

A descriptor of a dma-buf reads back as "/dmabuf:NAME" (dmabuffs_dname() in
drivers/dma-buf/dma-buf.c); its fdinfo (dma_buf_show_fdinfo()) says `ino`, `size`, `count`,
`exp_name` and, where one was set, `name`, which is the last line and may itself hold line breaks. A
mapping shows in maps as "/dmabuf:NAME" with the inode, and outlives the descriptor. A file on disk
may have such a path too; only a dma-buf has `exp_name` in its fdinfo, and only its pseudo file
system has the device number of one.

DRM's fdinfo keys are those of Documentation/gpu/drm-usage-stats.rst: drm-driver, drm-client-id,
drm-pdev, drm-client-name; a driver shows them only if it opts in (vgem and virtio-gpu do not).

Processes come and go during the scan: one that is gone is left out. One that may not be read is
counted. Descriptor tables that a thread does not share with its process are not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dmabuf_tool.kernel.text import decode

_PREFIX: Final = b"/dmabuf:"
_DRM_NODES: Final = (b"/dev/dri/", b"/dev/accel/")
_PF_KTHREAD: Final = 0x00200000  # include/linux/sched.h

_HIDEPID: Final = re.compile(rb"hidepid=(?:[24]|invisible|ptraceable)")

# One line of maps: range, permissions, offset, device, inode, path.
_MAPPING: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+) +/dmabuf:",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Descriptor:
    """What fdinfo says of one dma-buf. `size` is in bytes, `count` the references to the file.

    `ino` and `count` are None where the kernel does not show them.
    """

    ino: int | None
    size: int
    count: int | None
    exporter: str
    name: str | None


@dataclass
class Holding:
    """One process and one buffer: its descriptors, its mappings and their length in bytes."""

    fds: list[int] = field(default_factory=list)
    maps: int = 0
    mapped: int = 0


@dataclass(frozen=True)
class DrmClient:
    """One open DRM file of a process; `client` is unique per open file where it is shown."""

    fd: int
    driver: str
    client: int | None
    device: str | None
    name: str | None


@dataclass
class Process:
    """One process that holds dma-bufs (by inode number) or has DRM files open."""

    pid: int
    comm: str
    buffers: dict[int, Holding] = field(default_factory=dict)
    drm: list[DrmClient] = field(default_factory=list)


@dataclass
class Scan:
    """All holders, what their fdinfo says of each buffer by inode, and what could not be seen.

    `denied` counts the user processes whose descriptors may not be read; `hidden` is true where
    /proc is mounted with hidepid and does not even list them.
    """

    processes: list[Process] = field(default_factory=list)
    buffers: dict[int, Descriptor] = field(default_factory=dict)
    scanned: int = 0
    denied: int = 0
    vanished: int = 0
    hidden: bool = False

    @property
    def complete(self) -> bool:
        """Whether every process was looked at, so that "nobody holds it" can be said."""
        return not self.denied and not self.hidden


def parse(data: bytes) -> Descriptor | None:
    """Parse the fdinfo of a dma-buf; None for any other file."""
    head, found, name = data.partition(b"\nname:\t")
    keys = dict(_pairs(head))
    if b"exp_name" not in keys or not keys.get(b"size", b"").isdigit():
        return None
    return Descriptor(
        ino=_number(keys.get(b"ino")),
        size=int(keys[b"size"]),
        count=_number(keys.get(b"count")),
        exporter=decode(keys[b"exp_name"]),
        name=decode(name.removesuffix(b"\n")) if found else None,
    )


def parse_drm(fd: int, data: bytes) -> DrmClient | None:
    """Parse the fdinfo of a DRM file; None where the driver shows nothing."""
    keys = dict(_pairs(data))
    driver = keys.get(b"drm-driver")
    if not driver:
        return None
    device, name = keys.get(b"drm-pdev"), keys.get(b"drm-client-name")
    return DrmClient(
        fd=fd,
        driver=decode(driver),
        client=_number(keys.get(b"drm-client-id")),
        device=decode(device) if device else None,
        name=decode(name) if name else None,
    )


def _pairs(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Split `key:<TAB>value` lines."""
    for line in data.split(b"\n"):
        key, found, value = line.partition(b":")
        if found:
            yield key, value.strip()


def _number(raw: bytes | None) -> int | None:
    """Read a decimal number that may be missing."""
    return int(raw) if raw is not None and raw.isdigit() else None


def scan(root: Path = Path("/"), *, maps: bool = True) -> Scan:
    """Look at every process once.

    Without `maps` buffers whose descriptor is closed and which are only mapped are not seen, and
    the scan takes about half the time.

    Raises OSError when /proc itself cannot be read.
    """
    proc = os.fsencode(root / "proc")
    found = Scan(hidden=_hidden(proc))
    # Device numbers ("00:0e") of the file system the buffers live on, learnt from descriptors.
    filesystems: set[bytes] = set()
    mapped: list[tuple[Process, list[re.Match[bytes]]]] = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        base = proc + b"/" + entry
        process = Process(int(entry), "")
        try:
            fds = os.listdir(base + b"/fd")
            _descriptors(base, fds, process, found, filesystems)
            lines = _mappings(base) if maps else []
            if process.buffers or process.drm or lines:
                process.comm = comm(process.pid, root)
        except PermissionError:
            if not _kernel_thread(base):
                found.denied += 1
            continue
        except (FileNotFoundError, ProcessLookupError):
            found.vanished += 1
            continue
        found.scanned += 1
        if lines:
            mapped.append((process, lines))
        elif process.buffers or process.drm:
            found.processes.append(process)
    # Mappings last: only now is it known which device number means dma-buf.
    for process, lines in mapped:
        _count_mappings(process, lines, filesystems)
        if process.buffers or process.drm:
            found.processes.append(process)
    found.processes.sort(key=lambda process: process.pid)
    return found


def _descriptors(
    base: bytes, fds: list[bytes], process: Process, found: Scan, filesystems: set[bytes]
) -> None:
    """Read the links of one process, and the fdinfo of those that are dma-bufs or DRM files."""
    for fd in fds:
        path = base + b"/fd/" + fd
        try:
            target = os.readlink(path)
            if target.startswith(_PREFIX):
                buffer = parse(_contents(base + b"/fdinfo/" + fd))
                if buffer is None:
                    continue
                ino = os.stat(path).st_ino if buffer.ino is None else buffer.ino
                found.buffers[ino] = buffer
                process.buffers.setdefault(ino, Holding()).fds.append(int(fd))
                if not filesystems:
                    device = os.stat(path).st_dev
                    filesystems.add(b"%02x:%02x" % (os.major(device), os.minor(device)))
            elif target.startswith(_DRM_NODES):
                client = parse_drm(int(fd), _contents(base + b"/fdinfo/" + fd))
                if client is not None:
                    process.drm.append(client)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
    for holding in process.buffers.values():
        holding.fds.sort()


def _mappings(base: bytes) -> list[re.Match[bytes]]:
    """Find the lines of maps that may be dma-bufs: start, end, device number, inode."""
    data = _contents(base + b"/maps")
    return list(_MAPPING.finditer(data)) if _PREFIX in data else []


def _count_mappings(
    process: Process, lines: list[re.Match[bytes]], filesystems: set[bytes]
) -> None:
    """Add the mappings of one process to what it holds."""
    for line in lines:
        start, end, device, ino = line.groups()
        # Pseudo file systems have major number 0; on one that is not the buffers' own, or on a
        # disk, "/dmabuf:..." is somebody's file.
        if (filesystems and device not in filesystems) or not device.startswith(b"00:"):
            continue
        holding = process.buffers.setdefault(int(ino), Holding())
        holding.maps += 1
        holding.mapped += int(end, 16) - int(start, 16)


def comm(pid: int, root: Path = Path("/")) -> str:
    """Read the command name of a process; empty when it is gone. Not safe for a terminal."""
    try:
        return decode(_contents(os.fsencode(root / "proc" / str(pid) / "comm")).removesuffix(b"\n"))
    except OSError:
        return ""


def _contents(path: bytes) -> bytes:
    """Read a file whole with plain system calls: no decoding, no buffer objects."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _kernel_thread(base: bytes) -> bool:
    """Tell kernel threads, which hold no descriptors, from processes; anybody may read stat."""
    try:
        stat = _contents(base + b"/stat")
    except OSError:
        return False
    fields = stat.rpartition(b")")[2].split()  # the comm may hold spaces and parentheses
    return len(fields) > 6 and bool(int(fields[6]) & _PF_KTHREAD)


def _hidden(proc: bytes) -> bool:
    """Whether /proc hides other users' processes from us (mount option hidepid)."""
    if os.geteuid() == 0:
        return False
    try:
        mounts = _contents(proc + b"/mounts")
    except OSError:
        return False
    for line in mounts.split(b"\n"):
        fields = line.split(b" ")
        if len(fields) > 3 and fields[1] == b"/proc":
            return _HIDEPID.search(fields[3]) is not None
    return False
