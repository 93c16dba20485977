# SPDX-License-Identifier: GPL-2.0-or-later
"""Names from outside made safe for a terminal.

The name of a dma-buf is whatever a process gave to DMA_BUF_SET_NAME (31 bytes, any but NUL), a
comm is what it gave to PR_SET_NAME, a device name is what a driver or the firmware chose. Any of
them can hold escape sequences, line breaks or characters that turn the writing direction. Such a
character is shown as a visible escape (`\\x1b`, `\\u202e`), so that a name stays on its line.

Bytes become text in `decode`; terminals get `safe`; JSON needs only `decode`, its writer escapes.
rich must be given `rich.text.Text(safe(name))`, never a string it would read as markup.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# What may not reach a terminal: C0 and C1 controls (ESC, CSI, BEL, tab, line breaks), separators
# that break lines, marks that change the writing direction or are invisible (bidi controls,
# zero-width characters, the byte order mark, interlinear marks, tags), and lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def decode(raw: bytes) -> str:
    r"""Turn bytes of the kernel into text; what is not UTF-8 becomes `\xNN`, no byte is lost."""
    return raw.decode("utf-8", "backslashreplace")


def _escape(match: re.Match[str]) -> str:
    """Write one unsafe character as Python would."""
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: str) -> str:
    """Escape every character that could do more than be seen. Pure ASCII names come back as is."""
    return _UNSAFE.sub(_escape, text)


def width(text: str) -> int:
    """Count the terminal cells of a text that went through `safe`.

    East Asian wide characters take two, combining marks none.
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in {"W", "F"})
        for char in text
    )


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """Fill a text with spaces to a number of cells, on the left when `right` aligned."""
    fill = " " * (cells - width(text))
    return fill + text if right else text + fill


def many(number: int, one: str, more: str = "") -> str:
    """Write a number with its noun: "1 mapping", "2 mappings"; `more` where "s" is not enough."""
    return f"{number} {one if number == 1 else more or f'{one}s'}"


def size(number: int) -> str:
    """Write a number of bytes as hands write it: 4096 -> "4.0 KiB", 31 -> "31 B"."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"
