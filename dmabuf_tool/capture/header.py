# SPDX-License-Identifier: GPL-2.0-or-later
"""The header of a capture: where, when and how it was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dmabuf_tool import __version__, schema
from dmabuf_tool.capture.format import Damaged, schema_description

_NS_LIMIT: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a capture say; the machine is the one that was traced."""

    host: str
    kernel: str
    """uname release."""
    arch: str
    """uname machine."""
    boot_id: str
    start_ns: int
    """CLOCK_MONOTONIC at the start of the trace."""
    realtime_offset_ns: int
    """CLOCK_REALTIME minus CLOCK_MONOTONIC at the start."""
    command: Sequence[str]
    plan: Sequence[Mapping[str, Any]] = ()
    """The resolved probe plan."""
    devices: Mapping[str, Any] = field(default_factory=dict)
    """The device inventory from sysfs at the start."""
    tool: str = __version__
    schema: Mapping[str, Any] = field(default_factory=schema_description)

    def to_json(self) -> dict[str, Any]:
        """The header as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Header:
        """Check and take a header; keys it does not know are ignored. Raises Damaged."""
        if not isinstance(value, dict):
            raise Damaged("header is not an object")
        header = cls(
            **{name: _string(value, name) for name in ("host", "kernel", "arch", "boot_id")},
            start_ns=_nanoseconds(value, "start_ns"),
            realtime_offset_ns=_nanoseconds(value, "realtime_offset_ns"),
            command=_list(value, "command", str),
            plan=_list(value, "plan", dict),
            devices=_object(value, "devices"),
            tool=_string(value, "tool"),
            schema=_object(value, "schema"),
        )
        for name, dtype in _LAYOUTS.items():
            layout = header.schema.get(name)
            size = layout.get("itemsize") if isinstance(layout, dict) else None
            if size != dtype.itemsize:
                raise Damaged(f"{name} records of {size!r} bytes instead of {dtype.itemsize}")
        return header


_LAYOUTS: Final = {"event": schema.EVENT, "table": schema.TABLE, "segment": schema.SEGMENT}


def _string(value: dict[str, Any], name: str) -> str:
    item = value.get(name)
    if not isinstance(item, str):
        raise Damaged(f"header: {name} is not a string")
    return item


def _nanoseconds(value: dict[str, Any], name: str) -> int:
    item = value.get(name)
    if not isinstance(item, int) or isinstance(item, bool) or abs(item) >= _NS_LIMIT:
        raise Damaged(f"header: {name} is not a number of nanoseconds")
    return item


def _list(value: dict[str, Any], name: str, kind: type) -> tuple[Any, ...]:
    items = value.get(name)
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        raise Damaged(f"header: {name} is not a list of {kind.__name__}")
    return tuple(items)


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    item = value.get(name)
    if not isinstance(item, dict):
        raise Damaged(f"header: {name} is not an object")
    return item
