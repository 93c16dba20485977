# SPDX-License-Identifier: GPL-2.0-or-later
import json

from hypothesis import given
from hypothesis import strategies as st

from dmabuf_tool.kernel.text import decode, pad, safe, size, width


def test_plain_names_stay_as_they_are():
    assert safe("camera-0 [bold] 画面 é") == "camera-0 [bold] 画面 é"


def test_control_characters_are_seen_and_not_obeyed():
    assert safe("\x1b[31mred\n\t\x9b\x7f") == "\\x1b[31mred\\x0a\\x09\\x9b\\x7f"


def test_writing_direction_cannot_be_turned():
    assert safe("a\u202eb\u2066\u200f\ufeff\U000e0041") == (
        "a\\u202eb\\u2066\\u200f\\ufeff\\U000e0041"
    )


def test_bytes_that_are_not_utf_8_are_kept_visible():
    assert decode(b"a\xff\xc3\xa9") == "a\\xffé"


@given(st.binary(max_size=40))
def test_any_name_is_one_printable_line(raw):
    text = safe(decode(raw))
    assert "\n" not in text
    assert all(char.isprintable() or char.isspace() for char in text if char.isascii())
    text.encode()  # no surrogates
    json.dumps(decode(raw))


def test_cells_of_a_terminal():
    assert width("abc") == 3
    assert width("画面") == 4
    assert width("e\u0301") == 1
    assert pad("画", 4) == "画  "
    assert pad("7", 3, right=True) == "  7"


def test_sizes():
    assert [size(n) for n in (0, 31, 4096, 8 << 20, 3 << 40)] == [
        *("0 B", "31 B", "4.0 KiB", "8.0 MiB", "3.0 TiB")
    ]
