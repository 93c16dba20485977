# SPDX-License-Identifier: GPL-2.0-or-later
"""The dma-bufs that exist now: bufinfo and the processes' descriptors, joined by inode number.

bufinfo knows every buffer and its attachments, but no process; /proc knows the holders, but not
the buffers only the kernel holds. Inode numbers of dma-bufs come from one counter and are not
reused while a buffer lives. The two are read one after the other: a buffer that came or went
between them appears with what one source said, and what the other would have said is None.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from dmabuf_tool.kernel import bufinfo, fdinfo


@dataclass(frozen=True)
class Holder:
    """A process that holds a buffer: descriptors, number of mappings, mapped bytes."""

    pid: int
    comm: str
    fds: tuple[int, ...]
    maps: int
    mapped: int


@dataclass(frozen=True)
class Buffer:
    """One buffer; None where no source that could be read says it. `size` is in bytes.

    `count` are all references to its file. `devices` has one entry an attachment. `other_refs` is
    what of `count` no descriptor and no mapping explains: references of drivers, attachments, and
    descriptors on their way through a socket.
    """

    ino: int
    size: int | None
    exporter: str | None
    name: str | None
    count: int | None
    devices: tuple[str, ...] | None
    holders: tuple[Holder, ...]
    other_refs: int | None


@dataclass(frozen=True)
class Source:
    """One kernel interface: whether it answered ("ok", "partial", or why not), and a detail."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Inventory:
    """All buffers by inode, the DRM clients, when it was (CLOCK_REALTIME, ns) and the sources.

    `holders_complete`: every process was seen, so a buffer without holders is the kernel's alone.
    """

    time_ns: int
    buffers: tuple[Buffer, ...]
    clients: tuple[tuple[int, str, fdinfo.DrmClient], ...]
    sources: tuple[Source, ...]
    holders_complete: bool

    @property
    def readable(self) -> bool:
        """Whether any source answered."""
        return any(source.status in {"ok", "partial"} for source in self.sources)

    @property
    def buffers_complete(self) -> bool:
        """Whether every buffer of the system is here: bufinfo answered, or what stood in for it."""
        return any(source.status == "ok" for source in self.sources if source.name != "processes")


@dataclass
class _Seen:
    """What the scan of the processes gave."""

    scan: fdinfo.Scan = field(default_factory=fdinfo.Scan)
    source: Source = Source("processes", "absent", "/proc cannot be read")


def take(
    root: Path = Path("/"),
    timeout: float = bufinfo.DEFAULT_TIMEOUT,
    instead: Callable[[], bufinfo.Bufinfo] | None = None,
) -> Inventory:
    """Read both sources and join them. Never raises for what cannot be read; see `sources`.

    `instead` is asked where bufinfo does not answer (the BPF iterator: kernel/ loads no programs).
    """
    now = time.time_ns()
    rows = bufinfo.read(root, timeout)
    sources = [Source("bufinfo", rows.status, rows.detail)]
    if rows.status != "ok" and instead is not None:
        rows = instead()
        sources.append(Source("iterator", rows.status, rows.detail))
    seen = _processes(root)
    sources.append(seen.source)
    holders = _holders(seen.scan)
    known = {row.ino: row for row in rows.buffers}
    inos = sorted(known.keys() | seen.scan.buffers.keys() | holders.keys())
    complete = seen.source.status == "ok"
    return Inventory(
        time_ns=now,
        buffers=tuple(
            _join(ino, known.get(ino), seen.scan.buffers.get(ino), holders.get(ino, ()), complete)
            for ino in inos
        ),
        clients=tuple(
            (process.pid, process.comm, client)
            for process in seen.scan.processes
            for client in process.drm
        ),
        sources=tuple(sources),
        holders_complete=complete,
    )


def _processes(root: Path) -> _Seen:
    """Scan /proc and say how much of it was seen."""
    try:
        scan = fdinfo.scan(root)
    except OSError as error:
        return _Seen(source=Source("processes", "absent", f"/proc: {error.strerror or error}"))
    if scan.hidden:
        detail = "/proc hides other users' processes (hidepid)"
    elif scan.denied:
        detail = f"{scan.denied} of {scan.scanned + scan.denied} processes may not be read"
    else:
        detail = f"{scan.scanned} processes"
    return _Seen(scan, Source("processes", "ok" if scan.complete else "partial", detail))


def _holders(scan: fdinfo.Scan) -> dict[int, tuple[Holder, ...]]:
    """Turn processes with buffers into buffers with processes."""
    holders: dict[int, list[Holder]] = {}
    for process in scan.processes:
        for ino, holding in process.buffers.items():
            holders.setdefault(ino, []).append(
                Holder(process.pid, process.comm, tuple(holding.fds), holding.maps, holding.mapped)
            )
    return {ino: tuple(found) for ino, found in holders.items()}


def _join(
    ino: int,
    row: bufinfo.Buffer | None,
    descriptor: fdinfo.Descriptor | None,
    holders: tuple[Holder, ...],
    complete: bool,
) -> Buffer:
    """Put together what is known of one buffer; the later source (/proc) wins on `count`."""
    source = descriptor or row
    count = descriptor.count if descriptor is not None else row.count if row is not None else None
    held = sum(len(holder.fds) + holder.maps for holder in holders)
    return Buffer(
        ino=ino,
        size=source.size if source else None,
        exporter=source.exporter if source else None,
        name=source.name if source else None,
        count=count,
        devices=row.devices if row is not None else None,
        holders=holders,
        other_refs=max(0, count - held) if count is not None and complete else None,
    )


def select(
    inventory: Inventory,
    pids: Sequence[int] = (),
    comms: Sequence[str] = (),
    exporters: Sequence[str] = (),
    devices: Sequence[str] = (),
) -> Inventory:
    """Keep the buffers that fit: one of each kind of filter that is given. Names may have *.

    All holders of a buffer that is kept stay, so that one sees with whom a process shares it.
    """
    return replace(
        inventory,
        buffers=tuple(
            buffer
            for buffer in inventory.buffers
            if (not pids or any(holder.pid in pids for holder in buffer.holders))
            and _fits(comms, *(holder.comm for holder in buffer.holders))
            and _fits(exporters, buffer.exporter or "")
            and _fits(devices, *(buffer.devices or ()))
        ),
        clients=tuple(
            (pid, comm, client)
            for pid, comm, client in inventory.clients
            if (not pids or pid in pids) and _fits(comms, comm)
        ),
    )


def _fits(patterns: Sequence[str], *names: str) -> bool:
    """Whether there are no patterns or one fits one of the names."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
