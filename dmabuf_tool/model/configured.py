# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits a user configures, for devices whose drivers say less than is true.

    # /etc/dmabuf-tool/constraints.toml
    [[device]]
    name = "fe800000.*"         # name of the device, or
    driver = "rockchip-rga"     # its driver; both may have *
    max_segment_count = 1
    max_segment_size = "64K"    # bytes, or with K, M, G
    boundary = 0x10000          # entries may not cross multiples of it
    alignment = 4096
    address_limit = "4G"        # addresses below it
    coherent = false
    pages = true                # its driver reads struct page from tables

The first table that fits a device holds. Sizes are powers of two where masks are made of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from dmabuf_tool.errors import UsageError
from dmabuf_tool.model.constraints import Configured
from dmabuf_tool.model.objects import Device

DEFAULT_FILE: Final = Path("/etc/dmabuf-tool/constraints.toml")
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    driver: str
    limits: Configured


class ConstraintFile:
    """The limits of a file; call it with a device."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries

    def __call__(self, device: Device) -> Configured | None:
        """The limits configured for a device, None if there are none."""
        for entry in self._entries:
            if fnmatchcase(device.name, entry.name) and fnmatchcase(device.driver, entry.driver):
                return entry.limits
        return None


def load_constraints(path: Path | None) -> ConstraintFile | None:
    """Read a file, or the system's if there is one.

    Raises UsageError, one line with the place, for a file that is missing or wrong.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return None
        path = DEFAULT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UsageError(f"{path}: {reason}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error
    return ConstraintFile(_entries(document, path))


def _entries(document: dict[str, Any], path: Path) -> list[_Entry]:
    unknown = set(document) - {"device"}
    if unknown:
        raise UsageError(f"{path}: unknown key '{min(unknown)}' (tables are [[device]])")
    tables = document.get("device", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: 'device' is not a list of tables: write [[device]]")
    return [_entry(table, f"{path}: [[device]] {number}") for number, table in enumerate(tables, 1)]


def _entry(table: dict[str, Any], place: str) -> _Entry:
    fields: dict[str, Any] = {}
    names = {"name": "*", "driver": "*"}
    for key, value in table.items():
        if key in names:
            if not isinstance(value, str) or not value:
                raise UsageError(f"{place}: {key} is not a name")
            names[key] = value
        elif key in _FIELDS:
            field, read = _FIELDS[key]
            fields[field] = read(value, f"{place}: {key}")
        else:
            known = ", ".join(["name", "driver", *_FIELDS])
            raise UsageError(f"{place}: unknown key '{key}'; known are {known}")
    if not {"name", "driver"} & set(table):
        raise UsageError(f"{place}: neither name nor driver is given")
    return _Entry(names["name"], names["driver"], Configured(**fields))


def _count(value: object, place: str) -> int:
    if type(value) is not int or not 1 <= value < 1 << 32:
        raise UsageError(f"{place} is not a number from 1")
    return value


def _bytes(value: object, place: str) -> int:
    """Bytes as a number, or as text with a unit."""
    number = value
    if isinstance(value, str):
        text = value.strip().upper().removesuffix("IB").removesuffix("B")
        unit = _UNITS.get(text[-1:], 1)
        digits = text[:-1] if unit > 1 else text
        number = int(digits) * unit if digits.isascii() and digits.isdigit() else None
    if type(number) is not int or not 1 <= number <= 1 << 64:
        raise UsageError(f'{place} is not a size: write 65536 or "64K"')
    return number


def _mask(value: object, place: str) -> int:
    """A power of two as the mask below it."""
    number = _bytes(value, place)
    if number & (number - 1):
        raise UsageError(f"{place} is not a power of two")
    return number - 1


def _limit(value: object, place: str) -> int:
    """The last address below a limit."""
    return _bytes(value, place) - 1


def _truth(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{place} is neither true nor false")
    return value


_FIELDS: Final[dict[str, tuple[str, Callable[[object, str], int | bool]]]] = {
    "max_segment_count": ("max_segment_count", _count),
    "max_segment_size": ("max_segment_size", _bytes),
    "boundary": ("segment_boundary_mask", _mask),
    "alignment": ("min_align_mask", _mask),
    "address_limit": ("address_limit", _limit),
    "coherent": ("coherent", _truth),
    "pages": ("pages", _truth),
}
"""Key -> field of Configured, and how it is read."""
