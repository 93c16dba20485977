# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that the source only marks, and the loader writes."""

from __future__ import annotations

import struct
from typing import Final

_FETCH_ADD_MARK: Final = 0x7AF0


def fetch_add(code: bytes) -> bytes:
    """Put atomic fetch-and-add where the source marked it (fetch_add() in bpf/core.bpf.h).

    The mark is a 64-bit store with a telling offset: opcode 0x7b becomes 0xdb (BPF_ATOMIC |
    BPF_DW | BPF_STX), the offset 0 and the immediate BPF_ADD | BPF_FETCH.
    """
    out = bytearray(code)
    for at in range(0, len(out), 8):
        if out[at] == 0x7B and struct.unpack_from("<h", out, at + 2)[0] == _FETCH_ADD_MARK:
            out[at] = 0xDB
            struct.pack_into("<hi", out, at + 2, 0, 0x01)
    return bytes(out)
