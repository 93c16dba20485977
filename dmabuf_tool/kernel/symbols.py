# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/kallsyms and /proc/modules: which functions exist, and which function an address is in.

kallsyms has one line a symbol, `address type name` and for modules `<TAB>[module]`: 120,000 to
250,000 lines, 5 to 12 MB. It is read in pieces and every piece is handled as bytes or as one numpy
array, so that neither time nor memory grows with Python objects. Addresses read as zero where
kptr_restrict or a missing CAP_SYSLOG hides them (kallsyms_show_value() in kernel/kallsyms.c);
names are shown all the same.

A function whose name carries a suffix (`iommu_pgsize.isra.0`) is not found under its plain name,
and must not be: the compiler changed its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIECE: Final = 1 << 18
_TEXT: Final = b"tTwW"  # symbol types of functions

# An address further than this from the start of the last symbol before it is in no function.
_LONGEST_FUNCTION: Final = 1 << 20


@dataclass(frozen=True)
class Symbol:
    """One symbol; `module` is None for the kernel itself, `address` 0 where it is hidden."""

    name: str
    address: int
    type: str
    module: str | None


@dataclass(frozen=True)
class Location:
    """Where an address is: `offset` bytes into a function, of a module or of the kernel."""

    name: str
    offset: int
    module: str | None

    def __str__(self) -> str:
        """Write it as the kernel does: name+0x1f [module]."""
        text = f"{self.name}+{self.offset:#x}"
        return f"{text} [{self.module}]" if self.module else text


@dataclass(frozen=True)
class Module:
    """One line of /proc/modules; `size` in bytes, `address` 0 where it is hidden.

    From Linux 6.4 on `address` is that of the text alone, and `size` counts data too, which lies
    elsewhere (ac3b43283923 ("module: replace module_layout with module_memory")): the text ends
    at address + size or before.
    """

    name: str
    size: int
    users: int
    state: str
    address: int


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


def modules(root: Path = Path("/")) -> dict[str, Module]:
    """List the loaded modules by name; none where the kernel has no modules."""
    try:
        text = (root / "proc/modules").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        fields = line.split()  # name size users dependencies state address [taints]
        if len(fields) >= 6:
            users = int(fields[2]) if fields[2].isdigit() else 0
            found[fields[0]] = Module(
                fields[0], int(fields[1]), users, fields[4], int(fields[5], 16)
            )
    return found


class Table:
    """The kernel's functions sorted by address, to name the frames of stacks.

    Modules loaded later are not in it: build a new one after a load. Takes about 40 bytes a
    function (60,000 to 150,000 of them). Behind a module's end there may have been another that
    is unloaded: such addresses are not given the last function before them.
    """

    def __init__(
        self,
        addresses: NDArray[np.uint64],
        starts: NDArray[np.uint32],
        names: bytes,
        loaded: Mapping[str, Module] = MappingProxyType({}),
    ) -> None:
        """Take addresses sorted, shape (n,), and the start of each one's text in `names`."""
        self._addresses = addresses
        self._starts = starts
        self._names = names
        self._loaded = loaded

    @classmethod
    def read(cls, root: Path = Path("/")) -> Table:
        """Read kallsyms.

        Raises OSError where it cannot be read. The table is empty where addresses are hidden.
        """
        import numpy as np

        addresses, starts, names = [], [], []
        length = 0
        for piece in _pieces(root):
            found, offsets, text = _functions(piece)
            addresses.append(found)
            starts.append(offsets + np.uint32(length))
            names.append(text)
            length += len(text)
        if not addresses:
            return cls(np.empty(0, np.uint64), np.empty(0, np.uint32), b"")
        every = np.concatenate(addresses)
        order = np.argsort(every, kind="stable")
        text = b"".join(names)
        return cls(every[order], np.concatenate(starts)[order], text, modules(root))

    def __len__(self) -> int:
        """Count the functions."""
        return len(self._addresses)

    def locate(self, addresses: Iterable[int]) -> list[Location | None]:
        """Name addresses; None for one that is in no known function."""
        import numpy as np

        wanted = np.fromiter(addresses, np.uint64)
        if not len(self):
            return [None] * len(wanted)
        # Of several names of one address (aliases) the first in kallsyms is taken.
        before = np.searchsorted(self._addresses, wanted, side="right") - 1
        starts = self._addresses[np.maximum(before, 0)]
        first = np.searchsorted(self._addresses, starts, side="left")
        return [
            self._location(int(index), int(address) - int(start))
            if at >= 0 and int(address) - int(start) < _LONGEST_FUNCTION
            else None
            for address, at, start, index in zip(wanted, before, starts, first, strict=True)
        ]

    def _location(self, index: int, offset: int) -> Location | None:
        """Read the name of one function out of the text; None if its module ends before.

        So does what initialised a module: it is outside of it, and freed when that is done.
        """
        start = int(self._starts[index])
        line = self._names[start : self._names.index(b"\n", start)]
        name, _, owner = line.decode("ascii", "replace").partition("\t")
        owner = owner.strip("[]")
        module = self._loaded.get(owner)
        if module is not None and module.address:
            into = int(self._addresses[index]) - module.address
            if not 0 <= into <= into + offset < module.size:
                return None
        return Location(name, offset, owner or None)


def _functions(
    piece: bytes,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], bytes]:
    """Take the functions out of whole lines of kallsyms, all at once.

    Returns addresses (n,), the offset of each one's text (n,) and the text, "name[<TAB>[module]]"
    a line. Lines of symbols that are no functions, or whose address is hidden, are left out.
    """
    import numpy as np

    if len(piece) < 20:
        return np.empty(0, np.uint64), np.empty(0, np.uint32), b""
    data = np.frombuffer(piece, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))
    # 16 digits, space, type, space, a name of one character at least
    fits = (ends - starts) > 19
    starts, ends = starts[fits], ends[fits]
    is_function = np.isin(data[starts + 17], np.frombuffer(_TEXT, np.uint8))
    starts, ends = starts[is_function], ends[is_function]
    digits = np.lib.stride_tricks.sliding_window_view(data, 16)[starts]
    # "0".."9" are 0x30.., "a".."f" are 0x61..
    values = np.where(digits > ord("9"), digits - (ord("a") - 10), digits - ord("0"))
    pairs = (values[:, ::2] << 4) | values[:, 1::2]
    addresses = np.ascontiguousarray(pairs).view(">u8")[:, 0].astype(np.uint64)
    shown = addresses != 0
    addresses, starts, ends = addresses[shown], starts[shown] + 19, ends[shown] + 1
    # One byte mask of all names: +1 where one starts, -1 behind its line break, summed up.
    edges = np.zeros(len(data) + 1, np.int8)
    edges[starts] += 1
    edges[ends] -= 1
    text = data[np.cumsum(edges[:-1], dtype=np.int8).astype(bool)].tobytes()
    lengths = (ends - starts).astype(np.uint32)
    offsets = np.concatenate((np.zeros(1, np.uint32), np.cumsum(lengths, dtype=np.uint32)[:-1]))
    return addresses, offsets[: len(addresses)], text
