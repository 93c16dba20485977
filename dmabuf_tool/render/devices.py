# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices with their limits, as a table and as JSON.

"?" marks what sysfs does not show, "-" what is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from dmabuf_tool.kernel.devices import UNKNOWN, Device
from dmabuf_tool.kernel.iommu import Group
from dmabuf_tool.kernel.machine import Machine
from dmabuf_tool.render.table import Cell, Column, Part, Table

SCHEMA: Final = "dmabuf-tool/devices/1"

_NODES_SHOWN: Final = 3

COLUMNS: Final = (
    Column("DEVICE", "name", 16, "Name of the device"),
    Column("DRIVER", "driver", 14, "Bound driver"),
    Column("BUS", "bus", 8, "Bus"),
    Column("DMA MASK", "dma_mask", 8, "Highest address it can reach", "bits", right=True),
    Column("COHERENT", "coherent", 8, "Whether its DMA is cache coherent"),
    Column("GROUP", "iommu_group", 5, "IOMMU group", right=True),
    Column("DOMAIN", "domain_type", 6, "Type of the group's default domain"),
    Column("BUFFERS", "attachments", 7, "Attachments that exist now", right=True),
    Column("NODES", "nodes", 12, "Its DRM, accel, V4L2 and RDMA nodes"),
)


def attachments(lists: Iterable[Sequence[str]]) -> Counter[str]:
    """Count attachments by device name, from each buffer's list of devices."""
    return Counter(name for names in lists for name in names)


def page(
    devices: Sequence[Device], attached: Mapping[str, int] | None, units: Sequence[str], why: str
) -> list[Part]:
    """Make the page. `attached` is None where bufinfo was not read, `why` says why then."""
    rows: list[list[Cell]] = [
        [
            device.name,
            device.driver or "-",
            device.bus or "-",
            "?" if device.dma_mask is None else str(device.dma_mask.bit_length()),
            _yes(device.coherent),
            "-" if device.iommu_group is None else str(device.iommu_group),
            device.domain_type or ("-" if device.iommu_group is None else "?"),
            "?" if attached is None else str(attached.get(device.name, 0)),
            _nodes(device.nodes),
        ]
        for device in devices
    ]
    parts: list[Part] = [Table(COLUMNS, rows, "No devices that do DMA."), ""]
    if units:
        parts.append(
            f"IOMMU: {', '.join(units)}. A domain that a driver attaches itself is not shown."
        )
    else:
        parts.append("No IOMMU: devices are given physical addresses.")
    parts.append("Bus limit, segment size, boundary and alignment are kernel memory: a trace reads")
    parts.append("them when a device attaches.")
    if attached is None:
        parts.append(f"Attachments are unknown: {why}.")
    return parts


def document(
    devices: Sequence[Device],
    groups: Mapping[int, Group],
    units: Sequence[str],
    attached: Mapping[str, int] | None,
    machine: Machine,
) -> dict[str, Any]:
    """Make the JSON document; null is unknown, and "unknown" says why. In the manual."""
    return {
        "schema": SCHEMA,
        "host": machine.host,
        "kernel": machine.kernel,
        "boot_id": machine.boot_id,
        "devices": [_object(device, attached) for device in devices],
        "iommus": list(units),
        "iommu_groups": [
            {
                "id": group.id,
                "type": group.type,
                "devices": list(group.devices),
                "reserved_regions": [asdict(region) for region in group.reserved],
            }
            for _, group in sorted(groups.items())
        ],
        "unknown": dict(UNKNOWN),
    }


def _object(device: Device, attached: Mapping[str, int] | None) -> dict[str, Any]:
    """Make one device's JSON object: the keys of a report's devices, and what sysfs adds."""
    return {
        "name": device.name,
        "bus": device.bus,
        "driver": device.driver,
        "nodes": list(device.nodes),
        "dma_mask": device.dma_mask,
        "coherent_dma_mask": device.coherent_dma_mask,
        "bus_dma_limit": None,
        "max_segment_size": None,
        "max_segment_size_declared": None,
        "segment_boundary_mask": None,
        "min_align_mask": None,
        "coherent": device.coherent,
        "iommu": device.iommu,
        "iommu_group": device.iommu_group,
        "domain": None,
        "domain_type": device.domain_type,
        "bars": [
            {"number": number, "start": start, "end": end} for number, start, end in device.bars
        ],
        "attachments": None if attached is None else attached.get(device.name, 0),
    }


def _nodes(nodes: Sequence[str]) -> str:
    """Write the first few nodes; a capture card can have a dozen."""
    more = len(nodes) - _NODES_SHOWN
    return " ".join(nodes[:_NODES_SHOWN]) + (f" +{more}" if more > 0 else "") or "-"


def _yes(value: bool | None) -> str:
    """Write a truth that may be unknown."""
    return "?" if value is None else "yes" if value else "no"
