# SPDX-License-Identifier: GPL-2.0-or-later
"""Where memory of devices lies in the physical address space: PCI BARs, as the capture's header
has them from sysfs.

An exporter of device memory that goes around the DMA API hands out such addresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Bar:
    """A base address register's range of physical addresses, `end` included."""

    start: int
    end: int
    device: str
    number: int

    def __str__(self) -> str:
        return f"BAR {self.number} of {self.device}"


class DeviceMemory:
    """The BARs there were when the trace began; none where the capture does not have them."""

    def __init__(self, bars: Iterable[Bar] = ()) -> None:
        self._bars = sorted(bars)
        self._starts = [bar.start for bar in self._bars]

    def __len__(self) -> int:
        return len(self._bars)

    @classmethod
    def of(cls, devices: Mapping[str, Any]) -> DeviceMemory:
        """Take what is sound in a header's device inventory (kernel/devices.py)."""
        listed = devices.get("devices")
        return cls(
            bar
            for device in (listed if isinstance(listed, list) else ())
            if isinstance(device, dict) and isinstance(device.get("bars"), list)
            for bar in _bars(device)
        )

    def find(self, first: int, last: int) -> Bar | None:
        """The BAR that all of first..last lies in."""
        place = bisect_right(self._starts, first) - 1
        if place >= 0 and last <= self._bars[place].end:
            return self._bars[place]
        return None


def _bars(device: Mapping[str, Any]) -> Iterable[Bar]:
    for bar in device["bars"]:
        if not isinstance(bar, dict):
            continue
        number, start, end = (bar.get(key) for key in ("number", "start", "end"))
        if type(number) is int and type(start) is int and type(end) is int and start <= end:
            yield Bar(start, end, str(device.get("name", "?")), number)
