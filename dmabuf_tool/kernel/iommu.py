# SPDX-License-Identifier: GPL-2.0-or-later
"""sysfs's view of the IOMMU: units, groups, their default domain type and reserved regions.

/sys/kernel/iommu_groups/N/type is the type of the group's *default* domain
(iommu_group_show_type() in drivers/iommu/iommu.c), not of the one attached now: a domain a driver
owns (VFIO, a GPU) does not show. Only the probes see the current one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Region:
    """A range of device addresses the IOMMU core keeps free; `end` is its last byte."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Group:
    """One IOMMU group: devices that cannot be told apart share its domain.

    `type` is the default domain's ("DMA", "DMA-FQ", "identity", ...), None where it cannot be read.
    """

    id: int
    type: str | None
    devices: tuple[str, ...]
    reserved: tuple[Region, ...]


def group_of(device: Path) -> int | None:
    """Read which group a device (its sysfs directory) is in; None without an IOMMU."""
    try:
        name = (device / "iommu_group").readlink().name
    except OSError:
        return None
    return int(name) if name.isdigit() else None


def unit_of(device: Path) -> str | None:
    """Read which IOMMU ("dmar0", "smmu3.0x...") serves a device."""
    try:
        return (device / "iommu").readlink().name
    except OSError:
        return None


def units(root: Path = Path("/")) -> tuple[str, ...]:
    """List the IOMMUs of this machine."""
    return _names(root / "sys/class/iommu")


def groups(root: Path = Path("/")) -> dict[int, Group]:
    """Read all groups by number; none where there is no IOMMU or it is off."""
    base = root / "sys/kernel/iommu_groups"
    return {
        int(name): Group(
            id=int(name),
            type=_text(base / name / "type"),
            devices=_names(base / name / "devices"),
            reserved=_regions(_text(base / name / "reserved_regions") or ""),
        )
        for name in _names(base)
        if name.isdigit()
    }


def _regions(text: str) -> tuple[Region, ...]:
    """Parse `0xSTART 0xEND TYPE` lines."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3:
            found.append(Region(int(fields[0], 16), int(fields[1], 16), fields[2]))
    return tuple(found)


def _names(directory: Path) -> tuple[str, ...]:
    """List a directory in order; empty where it does not exist."""
    try:
        return tuple(sorted(entry.name for entry in directory.iterdir()))
    except OSError:
        return ()


def _text(path: Path) -> str | None:
    """Read a small file; None where it cannot be read or is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace").strip() or None
    except OSError:
        return None
