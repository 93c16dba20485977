# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled programs and the maps they use, and their cache on disk.

The text that is compiled holds the offsets of the running kernel, so its hash names the object:
another kernel, other options or another version of the tool is another file. Compiling takes
most of a start, reading the cache next to nothing.

What is loaded from the cache runs in the kernel: the directory and its files must belong to the
user who loads, and nobody else may write them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dmabuf_tool import __version__
from dmabuf_tool.probes.bpf import MapSpec
from dmabuf_tool.probes.cache import directory

_FORMAT: Final = 3
_LARGEST: Final = 16 << 20
_MOST_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Code:
    """A program's instructions, 8 bytes each; `maps` names the map an instruction refers to.

    `roles`: the instructions that load the program's role. `calls`: those that call a subprogram,
    with its C function (linker.py).
    """

    instructions: bytes
    maps: Mapping[int, str]
    roles: Sequence[int] = ()
    calls: Mapping[int, str] = field(default_factory=dict)

    def relocated(self, fds: Mapping[str, int], role: int = 0) -> bytes:
        """The instructions with the fds of these maps in them, for a role (bpf/core.bpf.h)."""
        out = bytearray(self.instructions)
        for index in self.roles:
            out[index * 8 + 4 : index * 8 + 8] = role.to_bytes(4, "little")
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
                    "roles": list(code.roles),
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
                tuple(code["roles"]),
                {int(index): called for index, called in code["calls"].items()},
            )
            for name, code in value["programs"].items()
        }
        specs = [MapSpec(**spec) for spec in value["maps"]]
        return cls(programs, {spec.name: spec for spec in specs})


def key_of(text: str) -> str:
    """The name of a text's object in the cache."""
    import hashlib  # and with it libcrypto, which who compiles can do without

    return hashlib.sha256(f"{__version__}\n{text}".encode()).hexdigest()[:32]


def load(key: str) -> Compiled | None:
    """An object from the cache; None where there is none that may be trusted."""
    path = Path(directory()) / f"{key}.json"
    try:
        if not _private(os.lstat(path.parent)):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if not (_private(facts) and stat.S_ISREG(facts.st_mode)):
                return None
            return Compiled.from_json(json.loads(file.read(_LARGEST)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(key: str, compiled: Compiled) -> None:
    """Keep an object; a cache that cannot be written is no error."""
    place = Path(directory())
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _private(os.lstat(place)):
            return
        temporary = place / f"{key}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="ascii") as file:
                json.dump(compiled.to_json(), file)
            os.replace(temporary, place / f"{key}.json")
        except OSError:
            temporary.unlink(missing_ok=True)
        _prune(place)


def _private(facts: os.stat_result) -> bool:
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _prune(place: Path) -> None:
    """Old kernels leave objects behind: keep the newest few."""
    files = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_MOST_FILES:]:
        path.unlink(missing_ok=True)
