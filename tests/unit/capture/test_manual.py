# SPDX-License-Identifier: GPL-2.0-or-later
"""man/dmabuf-capture.5 says what the code does: offsets, sizes, values, limits."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmabuf_tool import schema
from dmabuf_tool.capture import format as form
from dmabuf_tool.capture import header, writer

PAGE = Path(__file__).parents[3] / "man" / "dmabuf-capture.5"
TEXT = PAGE.read_text()
SECTIONS = {
    head: body
    for head, body in re.findall(r"^\.S[SH] (.+)\n((?:(?!\.S[SH] ).*\n)*)", TEXT, re.MULTILINE)
}


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head line."""
    table = re.search(r"^\.TS\n.*\n.*\n(.*\n)((?:.*\n)*?)\.TE", SECTIONS[section], re.MULTILINE)
    assert table, section
    lines = re.sub(r"T\{\n(.*)\n(?:.*\n)*?T\}", r"\1", table[2]).splitlines()
    return [line.split("|") for line in lines]


def fields(section: str) -> list[tuple[int, int, str]]:
    return [(int(row[0]), int(row[1]), row[2]) for row in rows(section)]


def of_dtype(dtype: np.dtype[Any], start: int = 0) -> list[tuple[int, int, str]]:
    found = (dtype.fields or {}).items()
    return [(info[1], info[0].itemsize, name) for name, info in found if info[1] >= start]


def types_agree(section: str, dtype: np.dtype[Any]) -> None:
    for row in rows(section):
        base = dtype[row[2]].base
        word = re.match(r"[ui]\d+", row[3])
        said = word[0] if word else "S"
        assert said == ("S" if base.kind in "SV" or row[2] == "words" else base.str[1:2] + str(
            base.itemsize * 8
        )), row  # fmt: skip


@pytest.mark.parametrize(
    ("section", "dtype"),
    [
        ("Event, 112 bytes", schema.EVENT),
        ("Table, 24 bytes", schema.TABLE),
        ("Segment, 32 bytes", schema.SEGMENT),
    ],
)
def test_records(section: str, dtype: np.dtype[Any]) -> None:
    assert fields(section) == of_dtype(dtype)
    assert section.endswith(f" {dtype.itemsize} bytes")
    types_agree(section, dtype)


def test_payloads() -> None:
    sections = {name.split()[1].strip(",") for name in SECTIONS if name.startswith("Payload ")}
    assert sections == set(schema.VIEWS) - {"words"}
    start = (schema.EVENT.fields or {})["words"][1]
    for payload in sections:
        section = f"Payload {payload}, at offset {start}"
        assert fields(section) == of_dtype(schema.VIEWS[payload], start)
        types_agree(section, schema.VIEWS[payload])


def test_kinds_and_flags() -> None:
    assert [(int(row[0]), row[1], row[2]) for row in rows("Event kinds")] == [
        (kind.value, kind.name, schema.PAYLOAD_OF[kind]) for kind in schema.Kind
    ]
    assert [(int(row[0], 16), row[1]) for row in rows("Event flags")] == [
        (flag.value, flag.name) for flag in schema.Flag
    ]
    assert [(int(row[0]), row[1]) for row in rows("Frame kinds")] == [
        (kind.value, kind.name) for kind in form.Frame
    ]


@pytest.mark.parametrize(
    ("section", "struct"),
    [
        ("Preamble, 20 bytes", form.PREAMBLE),
        ("Frame, 16 bytes and a body", form.FRAME),
        ("Batch, 48 bytes and three arrays", form.BATCH),
    ],
)
def test_heads(section: str, struct: Any) -> None:
    assert f", {struct.size} bytes" in section
    sizes = {"H": 2, "I": 4, "Q": 8}
    expected, offset = [], 0
    for count, code in re.findall(r"(\d*)([sHIQ])", struct.format):
        parts = [int(count)] if code == "s" else [sizes[code]] * int(count or 1)
        for size in parts:
            expected.append((offset, size))
            offset += size
    assert [field[:2] for field in fields(section)] == expected
    for row in rows(section):
        if row[2] != "magic":
            assert row[3].startswith(f"u{int(row[1]) * 8}")


def test_limits_and_versions() -> None:
    by_name = {row[2]: row[3] for row in rows("Preamble, 20 bytes")}
    assert by_name["magic"].startswith(form.MAGIC.hex(" "))
    assert by_name["major"] == f"u16, {form.MAJOR}"
    assert by_name["minor"] == f"u16, {form.MINOR}"
    assert f"format version {form.MAJOR}.{form.MINOR} byte for byte" in TEXT
    assert f"at most {form.MAX_HEADER}" in by_name["length"]
    frame = {row[2]: row[3] for row in rows("Frame, 16 bytes and a body")}
    assert f"at most {form.MAX_BODY}" in frame["length"]
    assert f"at most {form.MAX_BODY}" in frame["stored"]
    assert f"window of a zstd frame is at most {form.WINDOW} bytes" in TEXT
    assert f"CLOSE frame is at most {form.MAX_HEADER} bytes" in TEXT
    assert f"nested at most {form.MAX_DEPTH} deep" in TEXT
    assert f"up to {writer.FLUSH_SECONDS:.0f} second or {writer.FLUSH_BYTES} bytes" in TEXT


def test_header_keys() -> None:
    assert [row[0] for row in rows("Header")] == list(header.Header.__dataclass_fields__)
