# SPDX-License-Identifier: GPL-2.0-or-later
"""debugfs dma_buf/bufinfo: every dma-buf of the system and the devices attached to it.

The file comes from dma_buf_debug_show() in drivers/dma-buf/dma-buf.c; one buffer is

    size(%08zu) flags(%08x) mode(%08x) count(%08ld) exp_name ino(%08lu) name     tab-separated
    <TAB>... fence: ...                  one line a fence
    <TAB>Attached Devices:
    <TAB>device name                     one line an attachment
    Total N devices attached
    (empty line)

5.15 leaves the name empty where there is none and writes fences as "Exclusive fence" and "Shared
fence"; 6.1 and later write "<none>" and dma_resv_describe()'s lines. Inode numbers are decimal with
leading zeros.

A name may hold tabs and line breaks. It has 31 bytes at most (DMA_BUF_NAME_LEN), which is too
short to imitate the beginning of a row, so rows are found first; inside a row the device list is
the last one, because the name comes before it.

Reading takes the list's mutex and every buffer's reservation lock, which a stuck driver may hold
for ever: `read` waits a bounded time and leaves the reader behind in a daemon thread.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmabuf_tool.kernel.text import decode

PATH: Final = "sys/kernel/debug/dma_buf/bufinfo"

# Seconds. A system with thousands of buffers answers in milliseconds.
DEFAULT_TIMEOUT: Final = 2.0

# The least that a row begins with: six columns, then the name without an end.
_ROW: Final = re.compile(
    rb"^(\d{8,})\t([0-9a-f]{8})\t([0-9a-f]{8})\t(-?\d{7,})\t([^\t\n]*)\t(\d{8,})\t", re.MULTILINE
)
_DEVICES: Final = b"\n\tAttached Devices:\n"
_ATTACHED: Final = re.compile(rb"^Total (\d+) devices attached$", re.MULTILINE)
_FENCE: Final = re.compile(rb"\n\t[A-Za-z]+ fence:[^\n]*signalled$")


@dataclass(frozen=True)
class Buffer:
    """One row of bufinfo.

    `size` is in bytes; `count` are the references to the file: descriptors, mappings and the
    kernel's own; `devices` has one entry an attachment, so a device can appear twice.
    """

    ino: int
    size: int
    exporter: str
    name: str | None
    count: int
    flags: int
    mode: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Bufinfo:
    """What reading gave: `status` is "ok", "denied", "absent" or "timeout"; `detail` says why."""

    status: str
    detail: str
    buffers: tuple[Buffer, ...] = ()


def _name(raw: bytes) -> str | None:
    """Take the fence lines off the text between the row's start and its devices."""
    while match := _FENCE.search(raw):
        raw = raw[: match.start()]
    return None if raw in {b"", b"<none>"} else decode(raw)


def _buffer(row: re.Match[bytes], rest: bytes) -> Buffer:
    """Build one buffer from the start of its row and everything up to the next row."""
    size, flags, mode, count, exporter, ino = row.groups()
    name, found, tail = rest.rpartition(_DEVICES)
    if not found:  # cut off: keep the row, which is whole
        name, tail = rest.partition(b"\n")[0], b""
    end = _ATTACHED.search(tail)
    lines = tail[: end.start() if end else len(tail)].split(b"\n")
    return Buffer(
        ino=int(ino),
        size=int(size),
        exporter=decode(exporter),
        name=_name(name),
        count=int(count),
        flags=int(flags, 16),
        mode=int(mode, 16),
        devices=tuple(decode(line[1:]) for line in lines if line.startswith(b"\t")),
    )


def parse(data: bytes) -> tuple[Buffer, ...]:
    """Parse the whole file; an empty or foreign text gives no buffers."""
    rows = list(_ROW.finditer(data))
    ends = [*(row.start() for row in rows), len(data)][1:]
    return tuple(_buffer(row, data[row.end() : end]) for row, end in zip(rows, ends, strict=False))


class _Reader(threading.Thread):
    """Reads one file to its end, in the background."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="bufinfo", daemon=True)
        self.path = path
        self.data = b""
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            self.data = self.path.read_bytes()
        except OSError as error:
            self.error = error


# A reader that did not come back. While it lives no second one is started: each would wait for
# the same lock, and a live view asks every second.
_stuck: _Reader | None = None


def read(root: Path = Path("/"), timeout: float = DEFAULT_TIMEOUT) -> Bufinfo:
    """Read and parse bufinfo; never raises and never takes longer than `timeout` seconds."""
    global _stuck  # noqa: PLW0603 - one per process by its nature
    path = root / PATH
    if _stuck is not None and _stuck.is_alive():
        return Bufinfo("timeout", "an earlier read of bufinfo still waits for a buffer's lock")
    reader = _Reader(path)
    reader.start()
    reader.join(timeout)
    if reader.is_alive():
        _stuck = reader
        return Bufinfo(
            "timeout",
            f"no answer within {timeout:g} s: a driver holds a buffer's reservation lock",
        )
    _stuck = None
    if reader.error is None:
        return Bufinfo("ok", "", parse(reader.data))
    return _refused(reader.error, root)


def _refused(error: OSError, root: Path) -> Bufinfo:
    """Say why bufinfo could not be read."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Bufinfo("denied", "only root reads debugfs (or lockdown forbids it)")
    if error.errno != errno.ENOENT:
        return Bufinfo("absent", error.strerror or str(error))
    try:
        mounted = bool(os.listdir(root / "sys/kernel/debug"))
    except FileNotFoundError:
        return Bufinfo("absent", "this kernel has no debugfs (CONFIG_DEBUG_FS)")
    except OSError:
        return Bufinfo("denied", "only root reads debugfs")
    if not mounted:
        return Bufinfo("absent", "debugfs is not mounted: mount -t debugfs none /sys/kernel/debug")
    return Bufinfo("absent", "this kernel has no dma_buf/bufinfo (CONFIG_DMA_SHARED_BUFFER)")
