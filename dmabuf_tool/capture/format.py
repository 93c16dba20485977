# SPDX-License-Identifier: GPL-2.0-or-later
"""The capture file, byte for byte: constants, frames and batch bodies; no file is opened here.

    preamble (20 bytes) | header (JSON) | frame | frame | ... | CLOSE frame

man/dmabuf-capture.5 documents the same for others; a unit test holds the two together. All
numbers are little-endian. What is decoded here is hostile: a length is compared with a limit
before it is used, and bytes are never allocated on the word of the file (`unpack`).
"""

from __future__ import annotations

import enum
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import zstandard

from dmabuf_tool import schema
from dmabuf_tool.schema import Batch, Losses

# Not text, not valid UTF-8, and its end shows a transfer that changed line ends.
MAGIC: Final = b"\x8fDMABUF\n"
MAJOR: Final = 1
"""Raised when an older reader would misread the file."""
MINOR: Final = 0
"""Raised when something is added that an older reader may ignore."""

PREAMBLE: Final = struct.Struct("<8sHHII")
"""magic, major, minor, bytes of the header, CRC-32 of the 16 bytes before it and the header."""
FRAME: Final = struct.Struct("<HHIII")
"""kind, flags, bytes of the body, bytes stored, CRC-32 of the 12 bytes before it and the body."""
BATCH: Final = struct.Struct("<IIII4Q")
"""events, tables, segments, 0, then losses: events, scatterlists, untracked, calls."""

ZSTD: Final = 0x0001
"""Frame flag: the stored body is one zstd frame."""

MAX_HEADER: Final = 8 << 20
"""Bytes of JSON in the header or in one frame: JSON grows some 20 times when it is parsed."""
MAX_BODY: Final = 16 << 20
"""Bytes of one frame's body, stored or not."""
MAX_DEPTH: Final = 32
"""Nesting of JSON."""
WINDOW: Final = 8 << 20
"""The largest zstd window a reader accepts, bytes."""
PIECE: Final = 256 << 10
"""Bytes decompressed at a time."""


class Frame(enum.IntEnum):
    """What a frame holds. A reader skips kinds it does not know."""

    BATCH = 1
    STACKS = 2
    INVENTORY = 3
    CLOSE = 4


class Damaged(ValueError):
    """Bytes that no writer made: the text says what is wrong with them."""


class FrameHead(NamedTuple):
    """The 16 bytes before a frame's body."""

    kind: int
    flags: int
    length: int
    stored: int
    checksum: int


def preamble(header: bytes) -> bytes:
    """The bytes that come before the frames, header included. ValueError if it is too long."""
    if len(header) > MAX_HEADER:
        raise ValueError(f"header of {len(header)} bytes, the limit is {MAX_HEADER}")
    start = PREAMBLE.pack(MAGIC, MAJOR, MINOR, len(header), 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(header, zlib.crc32(start))) + header


def pack(kind: Frame, body: bytes, compressor: zstandard.ZstdCompressor) -> bytes:
    """One frame. The body is stored compressed where that is shorter."""
    if len(body) > MAX_BODY:
        raise ValueError(f"{kind.name} frame of {len(body)} bytes, the limit is {MAX_BODY}")
    stored, flags = compressor.compress(body), int(ZSTD)
    if len(stored) >= len(body):
        stored, flags = body, 0
    start = FRAME.pack(kind, flags, len(body), len(stored), 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(stored, zlib.crc32(start))) + stored


def frame_head(data: bytes) -> FrameHead:
    """Decode the start of a frame. Raises Damaged if its lengths are beyond the limits."""
    head = FrameHead(*FRAME.unpack(data))
    if head.length > MAX_BODY or head.stored > MAX_BODY:
        raise Damaged(f"frame of {max(head.length, head.stored)} bytes")
    return head


def check(head: FrameHead, stored: bytes) -> None:
    """Compare a frame with its checksum. Raises Damaged."""
    start = FRAME.pack(*head)[:-4]
    if zlib.crc32(stored, zlib.crc32(start)) != head.checksum:
        raise Damaged("checksum does not match")


def unpack(head: FrameHead, stored: bytes, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """A frame's body, decompressed piece by piece, as long as its head says. Raises Damaged."""
    if not head.flags & ZSTD:
        body = stored
    else:
        # Not decompress(): it allocates what the zstd frame itself claims.
        pieces, size = [], 0
        try:
            with decompressor.stream_reader(stored) as stream:
                while size <= head.length and (piece := stream.read(PIECE)):
                    pieces.append(piece)
                    size += len(piece)
        except zstandard.ZstdError as error:
            raise Damaged(f"body does not decompress ({error})") from error
        body = b"".join(pieces)
    if len(body) != head.length:
        raise Damaged("body is not as long as its frame says")
    return body


def pack_batch(batch: Batch) -> bytes:
    """The body of a BATCH frame; stacks are not in it."""
    lost = batch.losses
    head = BATCH.pack(
        len(batch.events),
        len(batch.tables),
        len(batch.segments),
        0,
        lost.events,
        lost.scatterlists,
        lost.untracked,
        lost.calls,
    )
    parts = (batch.events, batch.tables, batch.segments)
    return b"".join([head, *(part.tobytes() for part in parts)])


def unpack_batch(body: bytes, stacks: Mapping[int, tuple[str, ...]]) -> tuple[Batch, list[str]]:
    """The batch in a BATCH frame's body, and what of it had to be left out, in words.

    Events of unknown kinds and tables that point outside their segments are left out. Bytes
    after the arrays belong to a newer minor version. Raises Damaged if the arrays are cut.
    """
    if len(body) < BATCH.size:
        raise Damaged("batch without its counts")
    *counts, _, events, scatterlists, untracked, calls = BATCH.unpack_from(body)
    dtypes = (schema.EVENT, schema.TABLE, schema.SEGMENT)
    sizes = [count * dtype.itemsize for count, dtype in zip(counts, dtypes, strict=True)]
    if sum(sizes) > len(body) - BATCH.size:
        raise Damaged("batch is shorter than its counts say")
    parts, offset, notes = [], BATCH.size, []
    for count, size, dtype in zip(counts, sizes, dtypes, strict=True):
        parts.append(np.frombuffer(body, dtype, count, offset))
        offset += size
    rows, tables, segments = parts
    known = _KNOWN_KIND[np.minimum(rows["kind"], len(_KNOWN_KIND) - 1)]
    if not known.all():
        notes.append(f"{int((~known).sum())} events of unknown kinds left out")
        rows = rows[known]
    # In this order nothing overflows: offset + count is never computed.
    room = len(segments)
    inside = tables["offset"] <= room
    inside &= tables["count"] <= room - np.minimum(tables["offset"], room)
    inside &= tables["first"] <= tables["total"]
    inside &= tables["count"] <= tables["total"] - np.minimum(tables["first"], tables["total"])
    if not inside.all():
        notes.append(f"{int((~inside).sum())} scatterlist chunks out of range left out")
        tables = tables[inside]
    losses = Losses(events, scatterlists, untracked, calls)
    return Batch(rows, tables, segments, stacks, losses), notes


# One entry more than the largest kind, False: where every unknown kind is looked up.
_KNOWN_KIND: Final = np.isin(np.arange(max(schema.Kind) + 2), list(schema.Kind))


def pack_json(value: object) -> bytes:
    """JSON as captures hold it: ASCII, no spaces, no NaN."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def unpack_json(data: bytes) -> Any:
    """Parse JSON of a capture: bounded depth, no NaN, no unpaired surrogates. Raises Damaged."""
    try:
        return _clean(json.loads(data, parse_constant=_refuse), MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"bad JSON ({error})") from error


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not allowed")


def _clean(value: Any, depth: int) -> Any:
    """Make strings encodable, refuse what is nested too deep."""
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key, depth - 1): _clean(item, depth - 1) for key, item in value.items()}
    return value


def stacks_of(value: object) -> dict[int, tuple[str, ...]]:
    """Call stacks from the JSON of a STACKS frame. Raises Damaged."""
    if not isinstance(value, dict):
        raise Damaged("stacks are not an object")
    stacks = {}
    for key, frames in value.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 1 << 31):
            raise Damaged("stack id is not a 31-bit number")
        if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
            raise Damaged("stack is not a list of strings")
        stacks[int(key)] = tuple(frames)
    return stacks


def schema_description() -> dict[str, object]:
    """The record layouts as the header states them: name, numpy type, offset of each field."""
    return {
        "event": _describe(schema.EVENT),
        "table": _describe(schema.TABLE),
        "segment": _describe(schema.SEGMENT),
        "payloads": {name: _describe(dtype)["fields"] for name, dtype in schema.VIEWS.items()},
        "kinds": {kind.name: [kind.value, schema.PAYLOAD_OF[kind]] for kind in schema.Kind},
    }


def _describe(dtype: np.dtype[Any]) -> dict[str, object]:
    fields: Iterable[tuple[str, tuple[Any, ...]]] = (dtype.fields or {}).items()
    return {
        "itemsize": dtype.itemsize,
        "fields": [[name, field[0].base.str, field[1]] for name, field in fields],
    }
