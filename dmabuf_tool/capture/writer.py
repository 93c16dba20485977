# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording: batches into a capture file that survives a kill -9 and a full disk.

Only whole frames stand in the file: a write that fails or is interrupted is cut off again. What
is not yet in the file is at most a megabyte or a second of batches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from dmabuf_tool.capture.format import (
    MAX_BODY,
    MAX_HEADER,
    Frame,
    pack,
    pack_batch,
    pack_json,
    preamble,
)
from dmabuf_tool.capture.header import Header
from dmabuf_tool.errors import ToolError
from dmabuf_tool.schema import EVENT, SEGMENT, TABLE, Batch, Losses, empty_batch

# Measured on one core of an AMD EPYC virtual machine, synthetic map/unmap traffic. Level 1 writes
# 4.5 M events/s (500 MB/s) at 21 bytes an event, 5.3 to 1 (2.8 M/s on a busy machine); with 16
# scatterlist entries a map 1.7 M events/s (650 MB/s), 4.9 to 1. Level 3 is a quarter to a third
# slower and no smaller; level -5 is a fifth faster and 1.6 times as large.
LEVEL: Final = 1
FLUSH_BYTES: Final = 1 << 20
FLUSH_SECONDS: Final = 1.0
PIECE_BYTES: Final = MAX_BODY // 2
"""A batch larger than this is written as several."""


class CaptureFull(ToolError):
    """The file can take no more: recording is over, what was written is kept."""


class CaptureWriter:
    """A capture being recorded. Use as a context manager, or call close() in every case.

    Raises ToolError if the file cannot be made, CaptureFull if there is no room for its header.
    """

    def __init__(self, path: Path, header: Header, *, force: bool = False) -> None:
        self.path = path
        self.full = False
        """No more is recorded: CaptureFull was raised."""
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        self._pending: list[Batch] = []
        self._pending_bytes = 0
        self._inventory: list[bytes] = []
        self._flushed_at = time.monotonic()
        self._events = 0
        self._losses = Losses()
        self._end = 0
        start = pack_json(header.to_json())
        if len(start) > MAX_HEADER:
            raise ToolError(f"{path}: the device inventory is too large for a capture")
        self._fd = _create(path, preamble(start), force=force)
        self._end = os.fstat(self._fd).st_size

    @property
    def bytes_written(self) -> int:
        """Length of the file: whole frames only."""
        return self._end

    def write(self, batch: Batch) -> None:
        """Record a batch, at the latest a second or a megabyte from now.

        The batch's arrays must not change afterwards. After CaptureFull (raised once) this
        does nothing, and so do all other methods.
        """
        if self.full:
            return
        if batch.losses != self._losses:
            # A loss keeps its place in the stream: what came before it stays apart.
            self._flush_batches()
        size = batch.events.nbytes + batch.tables.nbytes + batch.segments.nbytes
        if size or batch.stacks or batch.losses != self._losses:
            self._pending.append(batch)
            self._pending_bytes += size
        self._losses = batch.losses
        if self._pending_bytes >= FLUSH_BYTES:
            self.flush()
        else:
            self.tick()

    def tick(self) -> None:
        """Flush if a second has passed since the last time; for when no batches come."""
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def write_inventory(self, entry: Mapping[str, Any]) -> None:
        """Record what changed beside the events: devices, process exits, uevents.

        It is written with the next batches, after them. Raises ValueError for an entry whose
        JSON is over MAX_HEADER bytes.
        """
        body = pack_json(entry)
        if len(body) > MAX_HEADER - 2:
            raise ValueError(f"inventory entry of {len(body)} bytes")
        if not self.full:
            self._inventory.append(body)

    def flush(self) -> None:
        """Put everything so far into the file, where a kill -9 cannot take it.

        Raises CaptureFull once; afterwards it does nothing.
        """
        if self.full:
            return
        self._flush_batches()
        while self._inventory:
            group, size = 0, 1
            for body in self._inventory:
                size += len(body) + 1
                if size > MAX_HEADER:
                    break
                group += 1
            body = b"[" + b",".join(self._inventory[:group]) + b"]"
            self._append(pack(Frame.INVENTORY, body, self._compressor))
            del self._inventory[:group]
        self._flushed_at = time.monotonic()

    def close(self, reason: str) -> None:
        """Flush, write the CLOSE frame and close the file; a second call does nothing.

        `reason` is one of those in dmabuf-capture(5). Raises CaptureFull if the last of it did
        not fit; the file is closed all the same.
        """
        if self._fd < 0:
            return
        try:
            self.flush()
            self._append(self._closing(reason))
        except CaptureFull:
            raise
        except BaseException:
            with contextlib.suppress(OSError):
                self._let_go()
            raise
        try:
            self._let_go()
        except OSError as error:
            # Network filesystems report at close what they could not store.
            self.full = True
            raise self._stopped(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("done" if error is None else "interrupted")

    def _flush_batches(self) -> None:
        if not self._pending:
            return
        # Piece by piece: a full disk keeps the ones before, and so does a Ctrl-C in between.
        self._pending = list(_pieces(merge(self._pending)))
        while self._pending:
            piece = self._pending[0]
            frames = self._stack_frames(piece)
            frames.append(pack(Frame.BATCH, pack_batch(piece), self._compressor))
            self._append(b"".join(frames))
            self._events += len(self._pending.pop(0).events)
        self._pending_bytes = 0

    def _stack_frames(self, batch: Batch) -> list[bytes]:
        """STACKS frames for the batch that follows them."""
        groups: list[list[bytes]] = [[]]
        size = 1
        for key, stack in batch.stacks.items():
            item = b'"%d":' % key + pack_json(stack)
            size += len(item) + 1
            if groups[-1] and size > MAX_HEADER:
                groups.append([])
                size = len(item) + 2
            groups[-1].append(item)
        return [
            pack(Frame.STACKS, b"{" + b",".join(items) + b"}", self._compressor)
            for items in groups
            if items
        ]

    def _closing(self, reason: str) -> bytes:
        totals = {
            "reason": reason,
            "end_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "events": self._events,
        }
        return pack(Frame.CLOSE, pack_json(totals), self._compressor)

    def _append(self, data: bytes) -> None:
        """Add whole frames at the end of the file, all or nothing."""
        try:
            _write_at(self._fd, data, self._end)
        except OSError as error:
            self._cut()
            self.full = True
            self._pending, self._inventory = [], []
            # The piece that was cut off may have left room to say why the capture ends here.
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            try:
                closing = self._closing("disk full" if full else "write error")
                _write_at(self._fd, closing, self._end)
                self._end += len(closing)
            except OSError:
                self._cut()
            with contextlib.suppress(OSError):
                self._let_go()
            raise self._stopped(error) from error
        except BaseException:  # Ctrl-C between two parts of a write
            self._cut()
            raise
        self._end += len(data)

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _cut(self) -> None:
        """Drop what stands behind the last whole frame; if even that fails, readers see it."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._end)

    def _stopped(self, error: OSError) -> CaptureFull:
        return CaptureFull(
            f"{self.path}: {os.strerror(error.errno or errno.EIO)}: recording stopped after "
            f"{self._events} events ({self._end} bytes); what was written is kept"
        )


def merge(batches: list[Batch]) -> Batch:
    """Batches in a row as one; tables follow their segments."""
    if len(batches) == 1:
        return batches[0]
    tables: list[NDArray[Any]] = []
    stacks: dict[int, tuple[str, ...]] = {}
    room = 0
    for batch in batches:
        table = batch.tables
        if room and len(table):
            table = table.copy()
            table["offset"] += room
        tables.append(table)
        room += len(batch.segments)
        stacks.update(batch.stacks)
    return Batch(
        np.concatenate([batch.events for batch in batches]),
        np.concatenate(tables),
        np.concatenate([batch.segments for batch in batches]),
        stacks,
        batches[-1].losses,
    )


def _pieces(batch: Batch) -> Iterator[Batch]:
    """The batch, cut so that each piece fits a frame: scatterlists first, then events."""
    size = batch.events.nbytes + batch.tables.nbytes + batch.segments.nbytes
    if size <= PIECE_BYTES:
        yield batch
        return
    none = empty_batch()
    yield Batch(none.events, none.tables, none.segments, batch.stacks, batch.losses)
    for tables, segments in _table_pieces(batch):
        yield Batch(none.events, tables, segments, {}, batch.losses)
    step = PIECE_BYTES // EVENT.itemsize
    for start in range(0, len(batch.events), step):
        events = batch.events[start : start + step]
        yield Batch(events, none.tables, none.segments, {}, batch.losses)


def _table_pieces(batch: Batch) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Tables with their segments in groups that fit a frame."""
    most = PIECE_BYTES // 2 // SEGMENT.itemsize
    rows: list[tuple[int, ...]] = []
    parts: list[NDArray[Any]] = []
    room = 0
    for mapping, first, count, total, offset in batch.tables.tolist():
        # A chunk of the ring has 128 entries at most; nothing forbids longer ones.
        for start in range(0, count or 1, most):
            length = min(most, count - start)
            if rows and (room + length > most or len(rows) >= most):
                yield np.array(rows, TABLE), np.concatenate(parts)
                rows, parts, room = [], [], 0
            rows.append((mapping, first + start, length, total, room))
            parts.append(batch.segments[offset + start : offset + start + length])
            room += length
    if rows:
        yield np.array(rows, TABLE), np.concatenate(parts)


def _create(path: Path, start: bytes, *, force: bool) -> int:
    """Make the file, 0600, with its first bytes in it, and give its descriptor.

    A file in the way is replaced with `force`, by rename: the new capture never shares an inode
    (owner, mode, open readers) with the old one, and the old one is lost only when the new one
    is there. Links, devices and directories are never replaced.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    if mode and not stat.S_ISREG(mode):
        raise ToolError(f"{path}: is not a regular file; captures are written to new files")
    if mode and not force:
        raise ToolError(f"{path}: exists already; -f overwrites it")
    target = path.with_name(f".{path.name}.{os.getpid()}") if mode else path
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(target, flags, 0o600)
    except OSError as error:
        raise ToolError(f"{path}: cannot create: {error.strerror}") from error
    try:
        _write_at(fd, start, 0)
        if target != path:
            os.replace(target, path)
    except BaseException as error:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(target)
        if isinstance(error, OSError):
            raise CaptureFull(f"{path}: cannot create: {error.strerror}") from error
        raise
    return fd


def _write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it; a disk that fills up may take a part first."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
