# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that do DMA, and what sysfs says of their limits.

sysfs shows the address masks of PCI devices (dma_mask_bits, consistent_dma_mask_bits: fls64() of
the masks, drivers/pci/pci-sysfs.c) and nothing else: bus limit, segment size and boundary,
alignment, and the masks of other buses are kernel memory. They are None here and `UNKNOWN` says
why; a trace reads them when the device attaches to a buffer.

Which devices matter: those behind DRM, accel, V4L2 and RDMA nodes first, then PCI devices with a
driver and whatever an IOMMU serves. Bridges, and platform devices that are only registers, are
shown on request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from dmabuf_tool.kernel import iommu

# Device limits nobody can read without a probe, and why.
_MEMORY: Final = "kernel memory; a trace reads it when the device attaches"
UNKNOWN: Final = {
    "dma_mask": "sysfs shows it for PCI devices only; a trace reads it at attach",
    "coherent_dma_mask": "sysfs shows it for PCI devices only",
    "bus_dma_limit": _MEMORY,
    "max_segment_size": _MEMORY + " (65536 unless the driver sets it)",
    "max_segment_size_declared": _MEMORY,
    "segment_boundary_mask": _MEMORY + " (4 GiB on PCI, none elsewhere, unless set)",
    "min_align_mask": _MEMORY,
    "coherent": "neither the architecture nor a device tree says it",
    "domain": "a trace gives domains their ids",
    "domain_type": "the device is in no IOMMU group, or the kernel does not say",
}

# Buses whose devices do DMA themselves.
BUSES: Final = (
    "pci", "platform", "amba", "faux", "host1x", "fsl-mc", "cdx", "vmbus", "virtio", "auxiliary"
)  # fmt: skip

# Classes whose nodes import or export dma-bufs.
CLASSES: Final = ("drm", "accel", "video4linux", "infiniband")

_PCI_BRIDGE: Final = 0x06  # base class, include/linux/pci_ids.h
_PCI_BARS: Final = 6  # PCI_STD_NUM_BARS, include/uapi/linux/pci_regs.h
_IORESOURCE_MEM: Final = 0x200  # include/linux/ioport.h
_COHERENT_ARCHES: Final = frozenset({"x86_64", "i686", "s390x"})


@dataclass(frozen=True)
class Device:
    """One device; masks are values, not bits. `nodes` are its class devices ("card0", "video2").

    `domain_type` is the type of its group's default domain. `bars`: number, first and last physical
    address of each memory BAR.
    """

    name: str
    bus: str | None
    driver: str | None
    nodes: tuple[str, ...]
    dma_mask: int | None
    coherent_dma_mask: int | None
    coherent: bool | None
    iommu: str | None
    iommu_group: int | None
    domain_type: str | None
    matters: bool
    bars: tuple[tuple[int, int, int], ...] = ()


def devices(root: Path = Path("/"), *, every: bool = False) -> tuple[Device, ...]:
    """Read the devices that matter here, or `every` one on a bus that does DMA.

    Those with DRM, accel, V4L2 or RDMA nodes come first, then by bus and name.
    """
    nodes = _nodes(root)
    groups = iommu.groups(root)
    paths = dict.fromkeys([*nodes, *_on_buses(root)])
    found = (_device(path, tuple(nodes.get(path, ())), groups) for path in paths)
    chosen = (device for device in found if every or device.matters)
    return tuple(sorted(chosen, key=lambda d: (not d.nodes, d.bus or "", d.name)))


def select(found: Sequence[Device], names: Sequence[str]) -> tuple[Device, ...]:
    """Keep the devices that a name fits, or one of whose nodes it fits; all without names."""
    return tuple(
        device
        for device in found
        if not names
        or any(fnmatchcase(label, name) for name in names for label in (device.name, *device.nodes))
    )


def _nodes(root: Path) -> dict[Path, list[str]]:
    """Find the devices behind class nodes, by their real path."""
    found: dict[Path, list[str]] = {}
    for kind in CLASSES:
        for entry in _entries(root / "sys/class" / kind):
            # card0-HDMI-A-1 is a connector, version a file
            if "-" in entry.name and kind == "drm":
                continue
            parent = entry / "device"
            if parent.exists():
                found.setdefault(parent.resolve(), []).append(entry.name)
    return found


def _on_buses(root: Path) -> Iterator[Path]:
    """Walk the devices of the buses above, by their real path."""
    for bus in BUSES:
        for entry in _entries(root / "sys/bus" / bus / "devices"):
            yield entry.resolve()


def _device(path: Path, nodes: tuple[str, ...], groups: dict[int, iommu.Group]) -> Device:
    """Read one device's directory."""
    bus = _link(path / "subsystem")
    driver = _link(path / "driver")
    group = iommu.group_of(path)
    return Device(
        name=path.name,
        bus=bus,
        driver=driver,
        nodes=nodes,
        dma_mask=_mask(path / "dma_mask_bits"),
        coherent_dma_mask=_mask(path / "consistent_dma_mask_bits"),
        coherent=_coherent(path, bus),
        iommu=iommu.unit_of(path),
        iommu_group=group,
        domain_type=groups[group].type if group in groups else None,
        matters=bool(nodes)
        or (driver is not None and (group is not None or bus == "pci") and not _bridge(path)),
        bars=_bars(path) if bus == "pci" else (),
    )


def _bars(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Read the first six lines of a PCI device's `resource`: start, end and flags, in hex.

    resource_show() in drivers/pci/pci-sysfs.c; what follows are its ROM and a bridge's windows.
    """
    try:
        lines = (path / "resource").read_text(encoding="ascii").splitlines()[:_PCI_BARS]
        rows = [[int(word, 16) for word in line.split()] for line in lines]
    except (OSError, ValueError):
        return ()
    return tuple(
        (number, row[0], row[1])
        for number, row in enumerate(rows)
        if len(row) == 3 and row[2] & _IORESOURCE_MEM and row[1] > row[0]
    )


def _mask(path: Path) -> int | None:
    """Read a number of bits and give the mask."""
    try:
        return (1 << int(path.read_text(encoding="ascii"))) - 1
    except (OSError, ValueError):
        return None


def _bridge(path: Path) -> bool:
    """Whether this is a PCI bridge, which has a driver (pcieport) but does no DMA of its own."""
    try:
        return int((path / "class").read_text(encoding="ascii"), 16) >> 16 == _PCI_BRIDGE
    except (OSError, ValueError):
        return False


def _coherent(path: Path, bus: str | None) -> bool | None:
    """Whether the device's DMA is cache coherent, where the architecture or a device tree says so.

    x86 knows no other. With a device tree the nearest node up that has `dma-coherent` or
    `dma-noncoherent` decides, and without one the device is not coherent on arm64
    (of_dma_is_coherent() in drivers/of/address.c). A PCI device asks its host bridge
    (pci_dma_configure()). ACPI's _CCA is not in sysfs.
    """
    arch = os.uname().machine
    if arch in _COHERENT_ARCHES:
        return True
    node = path / "of_node"
    if bus == "pci":
        above = [path, *path.parents]
        node = next((up / "of_node" for up in above if (up / "of_node").exists()), node)
    return _node_coherent(node.resolve(), arch) if node.exists() else None


def _node_coherent(node: Path, arch: str) -> bool | None:
    """Walk up a device tree from a node."""
    while (node / "name").exists():
        if (node / "dma-coherent").exists():
            return True
        if (node / "dma-noncoherent").exists():
            return False
        node = node.parent
    return False if arch == "aarch64" else None


def _link(path: Path) -> str | None:
    """Read the last part of a symbolic link's target; None where there is none."""
    try:
        return path.readlink().name
    except OSError:
        return None


def _entries(directory: Path) -> list[Path]:
    """List a directory in order; empty where it does not exist."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
