# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a capture, which is hostile: what is not whole, known and in range is left out and said.

Memory is bounded by the limits in format.py whatever the file claims: one frame is held at a
time, and all JSON together may be MAX_JSON bytes.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import zstandard

from dmabuf_tool.capture.format import (
    FRAME,
    MAGIC,
    MAJOR,
    MAX_HEADER,
    PREAMBLE,
    WINDOW,
    Damaged,
    Frame,
    check,
    frame_head,
    stacks_of,
    unpack,
    unpack_batch,
    unpack_json,
)
from dmabuf_tool.capture.header import Header
from dmabuf_tool.errors import ToolError
from dmabuf_tool.schema import Batch, Losses

MAX_JSON: Final = 64 << 20
"""Bytes of stacks and inventory taken from one capture."""
MAX_NOTES: Final = 20
_KINDS: Final = frozenset(Frame)


class CaptureReader:
    """A capture opened for reading. `open_capture` makes it.

    `inventory`, `notes`, `losses`, `events`, `closed`, `reason` and `end_ns` grow while
    `batches()` runs and are complete after it.
    """

    def __init__(self, path: Path, file: BinaryIO, header: Header, size: int) -> None:
        self.path = path
        self.header = header
        self.size = size
        """Bytes of the file when it was opened; what is added later is not read."""
        self._file = file
        self._first = file.tell()
        self._reset()

    def _reset(self) -> None:
        self.position = self._first
        """Bytes read so far, for progress bars."""
        self.inventory: list[dict[str, Any]] = []
        self.notes: list[str] = []
        """What a user should know about this file, one line each."""
        self.losses = Losses()
        self.events = 0
        self.closed = False
        """The recorder ended the file itself; else it was killed or is still at work."""
        self.reason = ""
        """Why it was closed: done, interrupted, disk full; "" if it was not."""
        self.end_ns = 0
        """CLOCK_MONOTONIC at close, 0 if it was not."""
        self._json_left = MAX_JSON

    def batches(self) -> Iterator[Batch]:
        """The batches in order; a second call starts again at the first.

        Ends at the last whole frame. Raises ToolError if the file cannot be read (a disk
        error); damage inside the file is a note, never an exception.
        """
        self._reset()
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        stacks: dict[int, tuple[str, ...]] = {}
        try:
            while not self.closed and (frame := self._next_frame(decompressor)):
                kind, body = frame
                if kind == Frame.BATCH:
                    batch, notes = unpack_batch(body, stacks)
                    for note in notes:
                        self._note(note)
                    stacks = {}
                    self.losses = batch.losses
                    self.events += len(batch.events)
                    yield batch
                elif kind == Frame.STACKS:
                    stacks.update(stacks_of(self._json(body, {})))
                elif kind == Frame.INVENTORY:
                    self.inventory += _objects(self._json(body, []))
                elif kind == Frame.CLOSE:
                    self._close(unpack_json(body))
        except Damaged as damage:
            self._note(f"damaged at byte {self.position} of {self.size} ({damage}): read up to it")
        except OSError as error:
            raise ToolError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _next_frame(self, decompressor: zstandard.ZstdDecompressor) -> tuple[int, bytes] | None:
        """Kind and body of the next whole frame; body b"" for an unknown kind; None at the end."""
        left = self.size - self.position
        if left == 0:
            self._note("not closed (the recorder was killed, or still runs); all of it was read")
            return None
        self._file.seek(self.position)
        start = self._file.read(min(FRAME.size, left))
        if len(start) == FRAME.size:
            head = frame_head(start)
            if head.stored <= left - FRAME.size:
                stored = self._file.read(head.stored)
                if len(stored) == head.stored:
                    check(head, stored)
                    known = head.kind in _KINDS
                    body = unpack(head, stored, decompressor) if known else b""
                    if not known:
                        self._note(f"frames of unknown kind {head.kind} skipped")
                    self.position += FRAME.size + head.stored
                    return head.kind, body
        self._note(f"torn at byte {self.position} of {self.size}: read up to the last whole frame")
        return None

    def _json(self, body: bytes, empty: object) -> Any:
        if len(body) > min(self._json_left, MAX_HEADER):
            self._note("more stacks and inventory than are read; the rest of them is left out")
            return empty
        self._json_left -= len(body)
        return unpack_json(body)

    def _close(self, totals: object) -> None:
        if not isinstance(totals, dict):
            raise Damaged("CLOSE is not an object")
        reason, end_ns, events = (totals.get(key) for key in ("reason", "end_ns", "events"))
        if not isinstance(reason, str) or type(end_ns) is not int or type(events) is not int:
            raise Damaged("CLOSE without reason, end_ns and events")
        self.closed, self.reason, self.end_ns = True, reason, end_ns
        if reason == "disk full":
            self._note("the disk was full: recording ended before the trace did")
        if events != self.events:
            self._note(f"closed after {events} events, but {self.events} were read")
        if self.position < self.size:
            self._note(f"{self.size - self.position} bytes after the end are ignored")

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Damaged("inventory is not a list of objects")
    return value


def open_capture(path: Path) -> CaptureReader:
    """Open a capture and read its header.

    Raises ToolError with one line for what is not there, not readable, not a capture, empty,
    damaged in its header, or of a newer major version.
    """
    try:
        # O_NONBLOCK: a FIFO in the place of a capture must not hang the tool.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError as error:
        raise ToolError(
            f"{path}: permission denied (captures are readable by their owner only: "
            "run as that user, or chown the file)"
        ) from error
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        what = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise ToolError(f"{path}: {what}, not a capture")
    file = os.fdopen(fd, "rb")
    try:
        header = _read_header(file, status.st_size)
    except (Damaged, OSError) as error:
        file.close()
        text = error.strerror if isinstance(error, OSError) else error
        raise ToolError(f"{path}: {text}") from error
    return CaptureReader(path, file, header, status.st_size)


def _read_header(file: BinaryIO, size: int) -> Header:
    """Read preamble and header. Raises Damaged."""
    if size == 0:
        raise Damaged("is empty: nothing was recorded")
    start = file.read(PREAMBLE.size)
    if start[: len(MAGIC)] != MAGIC:
        raise Damaged("is not a dmabuf-tool capture")
    if len(start) < PREAMBLE.size:
        raise Damaged("is torn inside its header: nothing can be read")
    _, major, minor, length, checksum = PREAMBLE.unpack(start)
    if major > MAJOR:
        raise Damaged(
            f"has format version {major}.{minor}, newer than this tool reads ({MAJOR}.x): "
            "use a newer dmabuf-tool"
        )
    if length > MAX_HEADER:
        raise Damaged(f"has a damaged header (of {length} bytes)")
    if length > size - PREAMBLE.size:
        raise Damaged("is torn inside its header: nothing can be read")
    body = file.read(length)
    if zlib.crc32(body, zlib.crc32(start[:-4])) != checksum:
        raise Damaged("has a damaged header (checksum does not match)")
    try:
        return Header.from_json(unpack_json(body))
    except Damaged as damage:
        raise Damaged(f"has a damaged header ({damage})") from damage
