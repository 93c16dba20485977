# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that are torn, damaged, foreign or made to harm."""

import json
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from capture_samples import HEADER, batch, read, record

from dmabuf_tool.capture import format as form
from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.errors import ToolError
from dmabuf_tool.schema import Kind, Losses

COMPRESSOR = zstandard.ZstdCompressor()


def capture(path: Path, *frames: bytes, header: Any = None) -> Path:
    """A capture of the given frames."""
    start = form.preamble(form.pack_json(header or HEADER.to_json()))
    path.write_bytes(start + b"".join(frames))
    return path


def frame(kind: int, body: bytes, **changes: int) -> bytes:
    """A frame of any kind, with a right checksum and whatever else is claimed."""
    head = {"flags": 0, "length": len(body), "stored": len(body)} | changes
    start = struct.pack("<HHII", kind, head["flags"], head["length"], head["stored"])
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start))) + body


def test_every_truncation_reads_all_whole_frames(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = record(path, [batch(n) for n in range(3)])
    ends, position = [], form.PREAMBLE.size + form.PREAMBLE.unpack_from(whole)[3]
    start, kinds = position, []
    while position < len(whole):
        head = form.FrameHead(*form.FRAME.unpack_from(whole, position))
        position += form.FRAME.size + head.stored
        ends.append(position)
        kinds.append(head.kind)
    assert kinds == [form.Frame.STACKS, form.Frame.BATCH] * 3 + [form.Frame.CLOSE]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length < start:
            with pytest.raises(ToolError, match=r"empty|not a dmabuf-tool capture|torn inside"):
                open_capture(path)
            continue
        got, reader = read(path)
        ended = kinds[: sum(end <= length for end in ends)]
        assert len(got) == ended.count(form.Frame.BATCH)
        assert not reader.closed
        note = "not closed" if length in [start, *ends] else f"torn at byte {reader.position}"
        assert [one.startswith(note) for one in reader.notes] == [True]
        assert reader.position == max([start, *(end for end in ends if end <= length)])


def test_flipped_bits_never_crash_nor_allocate_much(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = record(path, [batch(n, 200) for n in range(3)])
    seed = random.Random(7)
    tracemalloc.start()
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(seed.choice((1, 1, 3, 20))):
            damaged[seed.randrange(len(damaged))] ^= 1 << seed.randrange(8)
        path.write_bytes(damaged)
        try:
            got, reader = read(path)
        except ToolError as error:
            assert "\n" not in str(error)
        else:
            # Every bit is under a checksum: a flip is seen, and what is given is sound.
            assert reader.notes
            assert all((one.events["kind"] > 0).all() for one in got)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PERFILE2" + bytes(100), "is not a dmabuf-tool capture"),
        (b"\x8fDMA", "is not a dmabuf-tool capture"),
        (form.MAGIC + b"\x01", "is torn inside its header"),
        (form.MAGIC + struct.pack("<HHII", 1, 0, 500, 0), "is torn inside its header"),
        (form.MAGIC + struct.pack("<HHII", 1, 0, 2**32 - 1, 0), "has a damaged header"),
        (form.MAGIC + struct.pack("<HHII", 2, 7, 2**32 - 1, 0), "format version 2.7, newer"),
    ],
)
def test_what_is_no_capture_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ToolError, match=message) as caught:
        open_capture(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, message in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "is a directory"),
        (fifo, "is not a regular file"),
        (Path("/dev/null"), "is not a regular file"),
    ):
        with pytest.raises(ToolError, match=message):
            open_capture(path)


def test_no_permission_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ToolError, match=r"permission denied .*chown"):
        open_capture(tmp_path / "x")


def test_older_and_newer_minor_is_read_and_unknown_frames_skipped(tmp_path: Path) -> None:
    body = form.pack_batch(batch(1))
    newer = form.pack_json({**HEADER.to_json(), "more": [1]})
    start = form.MAGIC + struct.pack("<HHI", form.MAJOR, 99, len(newer))
    path = tmp_path / "x"
    path.write_bytes(
        start
        + struct.pack("<I", zlib.crc32(newer, zlib.crc32(start)))
        + newer
        + frame(77, b"whatever", flags=0xFFF0)
        + frame(form.Frame.BATCH, body + b"what minor 99 adds")
    )
    got, reader = read(path)
    assert got[0].events.tobytes() == batch(1).events.tobytes()
    assert reader.notes[0] == "frames of unknown kind 77 skipped"


@pytest.mark.parametrize(
    "changes",
    [
        {"host": 3},
        {"start_ns": "1"},
        {"start_ns": True},
        {"realtime_offset_ns": 1 << 63},
        {"command": "rm"},
        {"command": [1]},
        {"plan": [1]},
        {"devices": []},
        {"schema": {}},
        {"schema": {"event": 112}},
        {"schema": {**HEADER.schema, "event": {"itemsize": 120}}},
        {"devices": json.loads("[" * 40 + "]" * 40)},
    ],
)
def test_headers_of_wrong_types(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = capture(tmp_path / "x", header={**HEADER.to_json(), **changes})
    with pytest.raises(ToolError, match="has a damaged header"):
        open_capture(path)


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"[" * 100_000, b'{"host": NaN}', b"\xff", b"1" * 100_000]
)
def test_headers_that_are_no_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x").write_bytes(form.preamble(text))
    with pytest.raises(ToolError, match="has a damaged header"):
        open_capture(tmp_path / "x")


def test_unpaired_surrogates_become_printable(tmp_path: Path) -> None:
    path = capture(tmp_path / "x", header={**HEADER.to_json(), "host": "a\udc80b"})
    assert open_capture(path).header.host == "a?b"


def test_bombs_and_claims_cost_no_memory(tmp_path: Path) -> None:
    zeros = COMPRESSOR.compress(bytes(15 << 20))
    huge_claim = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + zeros[13:]
    wide_window = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    ).compressobj()
    wide = wide_window.compress(bytes(1000)) + wide_window.flush()
    bad = [
        frame(1, zeros, flags=1, length=100),
        frame(1, huge_claim, flags=1, length=100),
        frame(1, wide, flags=1, length=1000),
        frame(1, b"", length=form.MAX_BODY + 1),
        frame(1, b"", stored=2**32 - 1),
        frame(1, bytes(48), length=49),
        frame(1, bytes(47)),
        frame(1, struct.pack("<IIII4Q", *[2**32 - 1] * 4, 0, 0, 0, 0)),
    ]
    tracemalloc.start()
    for one in bad:
        got, reader = read(capture(tmp_path / "x", one, frame(1, form.pack_batch(batch(1)))))
        assert got == []
        assert "damaged at byte" in reader.notes[0] or "torn" in reader.notes[0]
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_events_and_tables_out_of_range_are_left_out(tmp_path: Path) -> None:
    one = batch(1, losses=Losses(events=3))
    one.events["kind"][0] = max(Kind) + 1
    big = 2**64 - 1
    for change in (
        {"offset": 3},
        {"offset": big},
        {"count": 4},
        {"total": 0},
        {"first": 2**32 - 1},
    ):
        tables = one.tables.copy()
        for name, value in change.items():
            tables[name][1] = value
        body = form.pack_batch(type(one)(one.events, tables, one.segments, {}, one.losses))
        got, reader = read(capture(tmp_path / "x", frame(1, body)))
        assert len(got[0].events) == 1
        assert got[0].tables.tolist() == one.tables[:1].tolist()
        assert reader.notes[:2] == [
            "1 events of unknown kinds left out",
            "1 scatterlist chunks out of range left out",
        ]
        assert reader.losses.events == 3


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (2, b"[]"),
        (2, b'{"-1": []}'),
        (2, b'{"2147483648": []}'),
        (2, '{"\u0663": []}'.encode()),
        (2, b'{"1": "abc"}'),
        (2, b'{"1": [1]}'),
        (3, b"{}"),
        (3, b"[1]"),
        (4, b"[]"),
        (4, b'{"reason": "done", "end_ns": true, "events": 0}'),
        (4, b'{"reason": "done", "end_ns": 1e9, "events": 0}'),
        (3, b"[" * 100_000),
    ],
)
def test_json_frames_of_wrong_types(tmp_path: Path, kind: int, body: bytes) -> None:
    got, reader = read(
        capture(tmp_path / "x", frame(1, form.pack_batch(batch(1))), frame(kind, body))
    )
    assert len(got) == 1
    assert reader.notes[0].startswith("damaged at byte")
    assert not reader.closed


def test_json_without_end_is_left_out(tmp_path: Path) -> None:
    one = form.pack(form.Frame.INVENTORY, b"[" + b" " * (8 << 20) + b"]", COMPRESSOR)
    _, reader = read(capture(tmp_path / "x", *[one] * 3))
    assert reader.notes[0].startswith("more stacks and inventory")


def test_what_stands_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = record(path, [batch(1)])
    path.write_bytes(whole + b"more")
    _, reader = read(path)
    assert reader.closed
    assert reader.notes == ["4 bytes after the end are ignored"]


def test_missing_events_are_said(tmp_path: Path) -> None:
    close = form.pack_json({"reason": "done", "end_ns": 1, "events": 9})
    _, reader = read(capture(tmp_path / "x", frame(4, close)))
    assert reader.notes == ["closed after 9 events, but 0 were read"]


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x"
    record(path, [batch(1), batch(2)])
    with open_capture(path) as reader:
        first = [one.events.tobytes() for one in reader.batches()]
        assert first == [one.events.tobytes() for one in reader.batches()]
        assert reader.events == 4
        assert reader.position == reader.size
