# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/kallsyms: which functions exist, and whether it says where.

kallsyms has one line a symbol, `address type name` and for modules `<TAB>[module]`: 120,000 to
250,000 lines, 5 to 12 MB. It is read in pieces and every piece is handled as bytes, so that neither
time nor memory grows with Python objects. Addresses read as zero where kptr_restrict or a missing
CAP_SYSLOG hides them (kallsyms_show_value() in kernel/kallsyms.c); names are shown all the same.

A function whose name carries a suffix (`iommu_pgsize.isra.0`) is not found under its plain name,
and must not be: the compiler changed its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 18


@dataclass(frozen=True)
class Symbol:
    """One symbol; `module` is None for the kernel itself, `address` 0 where it is hidden."""

    name: str
    address: int
    type: str
    module: str | None


def _pieces(root: Path) -> Iterator[bytes]:
    """Read kallsyms in pieces of whole lines.

    Raises OSError where it cannot be read.
    """
    fd = os.open(root / "proc/kallsyms", os.O_RDONLY | os.O_CLOEXEC)
    try:
        rest = b""
        parts: list[bytes] = []
        length = 0
        # The kernel gives a page at a time, however much is asked for.
        while part := os.read(fd, _PIECE):
            parts.append(part)
            length += len(part)
            if length >= _PIECE:
                whole, _, rest = b"".join(parts).rpartition(b"\n")
                yield whole + b"\n"
                parts, length = [rest], len(rest)
        if data := b"".join(parts):
            yield data
    finally:
        os.close(fd)


def exists(name: str, root: Path = Path("/")) -> bool:
    """Whether there is a symbol of exactly this name: read until it comes.

    Raises OSError where kallsyms cannot be read.
    """
    wanted = name.encode()
    return any(True for piece in _pieces(root) for _ in _lines_of(piece, wanted))


def find(names: Iterable[str], root: Path = Path("/")) -> dict[str, tuple[Symbol, ...]]:
    """Look up symbols by exact name in one pass; names that do not exist are missing.

    A static function may exist more than once. Raises OSError where kallsyms cannot be read.
    """
    wanted = {name.encode() for name in names}
    found: dict[str, list[Symbol]] = {}
    for piece in _pieces(root):
        # Splitting into a set costs the same for one name as for a hundred.
        for name in wanted.intersection(piece.split()):
            for symbol in _lines_of(piece, name):
                found.setdefault(symbol.name, []).append(symbol)
    return {name: tuple(symbols) for name, symbols in found.items()}


def _lines_of(piece: bytes, name: bytes) -> Iterator[Symbol]:
    """Find the lines whose third column is this name."""
    at = -1
    while (at := piece.find(b" " + name, at + 1)) >= 0:
        start = piece.rfind(b"\n", 0, at) + 1
        end = piece.find(b"\n", at)
        fields = piece[start : end if end >= 0 else len(piece)].split()
        if len(fields) >= 3 and fields[2] == name:
            module = fields[3].strip(b"[]").decode() if len(fields) > 3 else None
            yield Symbol(name.decode(), int(fields[0], 16), fields[1].decode(), module)


def addresses_hidden(root: Path = Path("/")) -> bool:
    """Whether kallsyms shows zeros for addresses: stacks cannot be named then.

    Raises OSError where kallsyms cannot be read.
    """
    for piece in _pieces(root):
        # Per-CPU symbols are zero honestly, functions never are.
        return not any(
            int(line[:16], 16) for line in piece.split(b"\n") if line[17:18] in {b"t", b"T"}
        )
    return True
