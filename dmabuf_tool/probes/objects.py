# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled programs and the maps they use: those that came with the tool, and a cache on disk.

Nothing of the running kernel is in a text (marks.py), so its hash names the object: another
version of the tool, another method of hooking or another architecture is another file. Those of the
first methods are compiled when the tool is installed (prepare.py), the rest where it is needed.

What is loaded from the cache runs in the kernel: the directory and its files must belong to the
user who loads, and nobody else may write them. What came with the tool is trusted as the tool is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dmabuf_tool import __version__
from dmabuf_tool.probes import marks
from dmabuf_tool.probes.bpf import MapSpec
from dmabuf_tool.probes.cache import OBJECTS_DIRECTORY, directory

if TYPE_CHECKING:
    from dmabuf_tool.probes.source import Unit

_FORMAT: Final = 4
_LARGEST: Final = 16 << 20
_MOST_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Code:
    """A program's instructions, 8 bytes each; `maps` names the map an instruction refers to.

    `marks`: what is to be filled in, by instruction. `calls`: those that call a subprogram, or load
    its address, with its C function (linker.py). `functions`: those of a linked program in
    which an address is loaded, by the instruction that each begins with.
    """

    instructions: bytes
    maps: Mapping[int, str]
    marks: Mapping[int, str] = field(default_factory=dict)
    calls: Mapping[int, str] = field(default_factory=dict)
    functions: Mapping[int, str] = field(default_factory=dict)

    def relocated(self, fds: Mapping[str, int], values: Mapping[str, int]) -> bytes:
        """The instructions with the fds of these maps in them, and what the marks stand for."""
        out = bytearray(self.instructions)
        marks.fill(out, self.marks, values)
        for index, name in self.maps.items():
            out[index * 8 + 4 : index * 8 + 8] = fds[name].to_bytes(4, "little")
        return bytes(out)


@dataclass(slots=True)
class Compiled:
    """Programs by name and the maps they share."""

    programs: dict[str, Code] = field(default_factory=dict)
    maps: dict[str, MapSpec] = field(default_factory=dict)

    def add(self, other: Compiled) -> None:
        """Take in another unit; maps of one name are one map."""
        for name, spec in other.maps.items():
            known = self.maps.setdefault(name, spec)
            assert known == spec, f"map {name} is declared twice: {known}, {spec}"
        self.programs |= other.programs

    def to_json(self) -> dict[str, Any]:
        """As in the cache."""
        return {
            "format": _FORMAT,
            "programs": {
                name: {
                    "instructions": base64.b64encode(code.instructions).decode(),
                    "maps": {str(index): used for index, used in code.maps.items()},
                    "marks": {str(index): name for index, name in code.marks.items()},
                    "calls": {str(index): called for index, called in code.calls.items()},
                }
                for name, code in self.programs.items()
            },
            "maps": [asdict(spec) for spec in self.maps.values()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Compiled:
        """Read what to_json() wrote. Raises KeyError, TypeError or ValueError."""
        if value["format"] != _FORMAT:
            raise ValueError("another format")
        programs = {
            name: Code(
                base64.b64decode(code["instructions"], validate=True),
                {int(index): used for index, used in code["maps"].items()},
                {int(index): name for index, name in code["marks"].items()},
                {int(index): called for index, called in code["calls"].items()},
            )
            for name, code in value["programs"].items()
        }
        specs = [MapSpec(**spec) for spec in value["maps"]]
        return cls(programs, {spec.name: spec for spec in specs})


def key_of(unit: Unit) -> str:
    """The name of a text's object."""
    import hashlib  # and with it libcrypto, which who compiles can do without

    words = "\n".join((__version__, *unit.flags, unit.text))
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def load(unit: Unit) -> Compiled | None:
    """A text's object, from the tool or the cache; None where there is none that may be trusted."""
    name, place = f"{key_of(unit)}.json", Path(directory())
    return _read(OBJECTS_DIRECTORY / name) or _read(place / name, place)


def _read(path: Path, mine: Path | None = None) -> Compiled | None:
    """A file's object; below `mine`, only if that and the file are the user's own."""
    try:
        if mine and not _private(os.lstat(mine)):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or (mine and not _private(facts)):
                return None
            return Compiled.from_json(json.loads(file.read(_LARGEST)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(unit: Unit, compiled: Compiled) -> None:
    """Keep an object; a cache that cannot be written is no error."""
    place = Path(directory())
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _private(os.lstat(place)):
            return
        write(place, unit, compiled)
        _prune(place)


def write(place: Path, unit: Unit, compiled: Compiled, mode: int = 0o600) -> None:
    """Write an object, whole or not at all. Raises OSError."""
    key = key_of(unit)
    temporary = place / f"{key}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "w", encoding="ascii") as file:
            json.dump(compiled.to_json(), file)
        os.replace(temporary, place / f"{key}.json")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _private(facts: os.stat_result) -> bool:
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _prune(place: Path) -> None:
    """Old kernels leave objects behind: keep the newest few."""
    files = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_MOST_FILES:]:
        path.unlink(missing_ok=True)
