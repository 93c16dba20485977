# SPDX-License-Identifier: GPL-2.0-or-later
"""The document of `report`: captures, findings, buffers, devices, contexts, losses.

`report --format json` writes it as it is; the text report is drawn from it. Ids are those of a
capture; where there are several captures, "capture" says which (an index into "captures").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.constraints import NO_GROUP, NO_LIMIT, Effective, Source, effective
from dmabuf_tool.model.frameworks import UNKNOWN
from dmabuf_tool.model.model import Model
from dmabuf_tool.model.objects import Buffer, Device
from dmabuf_tool.model.union import union
from dmabuf_tool.render import levels
from dmabuf_tool.render.findings import finding_objects, process_object
from dmabuf_tool.render.report_keys import LOSS_KEYS
from dmabuf_tool.rules.findings import Finding

SCHEMA: Final = "dmabuf-tool/report/1"


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture that was read: where it is from, its model and findings."""

    file: str
    host: str
    kernel: str
    boot_id: str
    start_ns: int
    end_ns: int
    notes: Sequence[str]
    model: Model
    findings: Sequence[Finding]
    withheld: Sequence[str] = ()
    """Rules whose findings losses can fake, and that would have found something."""


def document(captures: Sequence[Capture]) -> dict[str, Any]:
    """All captures as one document."""
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "captures": [capture_object(capture) for capture in captures],
        "findings": [],
        "buffers": [],
        "devices": [],
        "contexts": [],
        "processes": [],
        "two_level": [],
        "two_level_ended": [],
        "losses": dict.fromkeys(LOSS_KEYS, 0),
    }
    for index, capture in enumerate(captures):
        model = capture.model
        parts = {
            "findings": finding_objects(capture.findings, model),
            "buffers": [_buffer(buffer, model) for buffer in _buffers(model)],
            "devices": [_device(device, model) for device in model.registry.devices.values()],
            "contexts": levels.contexts(model),
            "two_level": list(levels.two_level(model)),
            "two_level_ended": list(levels.ended(model)),
            "processes": _processes(model),
        }
        for name, rows in parts.items():
            out[name] += [{**row, "capture": index} for row in rows]
        for name, count in _losses(model).items():
            out["losses"][name] += count
    return out


def _losses(model: Model) -> dict[str, int]:
    """What was lost, with the keys of report_keys.LOSS_KEYS."""
    lost = model.losses
    return {
        "events": lost.events,
        "scatterlists": lost.scatterlists,
        "untracked": model.untracked,
        "calls": lost.calls,
    }


def capture_object(capture: Capture) -> dict[str, Any]:
    """A capture with the keys of report_keys.CAPTURE_KEYS."""
    return {
        "file": capture.file,
        "host": capture.host,
        "kernel": capture.kernel,
        "boot_id": capture.boot_id,
        "start_ns": capture.start_ns,
        "end_ns": capture.end_ns,
        "events": capture.model.events,
        "lost": capture.model.losses.events,
        "complete": not any(_losses(capture.model).values()),
        "notes": list(capture.notes),
        "withheld": list(capture.withheld),
        "buffers_forgotten": capture.model.registry.released
        - len(capture.model.registry.ended_buffers),
    }


def _buffers(model: Model) -> list[Buffer]:
    known = [*model.registry.ended_buffers.values(), *model.registry.buffers.values()]
    return sorted(known, key=lambda buffer: buffer.id)


def _buffer(buffer: Buffer, model: Model) -> dict[str, Any]:
    counts = model.registry.counts_of(buffer.id)
    devices = (model.registry.devices.get(number) for number in sorted(buffer.devices))
    return {
        "id": buffer.id,
        "ino": buffer.ino,
        "size": buffer.size,
        "exporter": buffer.exporter,
        "name": buffer.name,
        "attachments": buffer.attachments,
        "attached_now": len(buffer.attached),
        "devices": [device.name for device in devices if device is not None],
        "processes": [process_object(tgid, model) for tgid in sorted(buffer.processes) if tgid],
        "union": _union(buffer, model),
        "preexisting": buffer.preexisting,
        "released": bool(buffer.released_ns),
        "maps": int(counts["maps"]) if counts is not None else 0,
        "bytes": int(counts["bytes"]) if counts is not None else 0,
        "cpu_accesses": int(counts["cpu_accesses"]) if counts is not None else 0,
    }


def _union(buffer: Buffer, model: Model) -> dict[str, Any] | None:
    """The union of the attachers' constraints, and what each contributes."""
    if not buffer.together:
        return None
    names = {number: device.name for number, device in model.registry.devices.items()}
    found = union(buffer.together)
    bounded = found.segment_boundary_mask != NO_LIMIT
    return {
        "max_segment_size": found.max_segment_size or None,
        "segment_size_of": names.get(found.segment_size_device),
        "max_segment_count": found.max_segment_count or None,
        "count_of": names.get(found.count_device),
        "segment_boundary_mask": found.segment_boundary_mask if bounded else None,
        "boundary_of": [names.get(number) for number in found.boundary_devices],
        "capacity": found.capacity() or None,
        "serves": found.serves(buffer.size),
        "attached": [
            {
                "device": names.get(site.device),
                "importer": str(site.importer) if site.importer else None,
                "framework": site.framework.name,
                "limits": limits_object(site.effective),
            }
            for site in buffer.together
        ],
    }


def limits_object(force: Effective) -> dict[str, Any]:
    """Effective limits, each as value and source."""
    rows = {
        "address_limit": (force.address_limit, force.address_source),
        "max_segment_size": (force.max_segment_size, force.segment_size_source),
        "segment_boundary_mask": (force.segment_boundary_mask, force.boundary_source),
        "min_align_mask": (force.min_align_mask, force.align_source),
        "max_segment_count": (force.max_segment_count, force.count_source),
        "coherent": (force.coherent, force.coherent_source),
        "pages": (force.pages, force.pages_source),
    }
    return {
        name: {"value": value, "source": str(source)}
        for name, (value, source) in rows.items()
        if source is not Source.NONE
    }


def _device(device: Device, model: Model) -> dict[str, Any]:
    position = model.registry.device_counts.position(device.id)
    counts = model.registry.device_counts.rows[position]
    limits = device.limits
    out: dict[str, Any] = {
        "id": device.id,
        "name": device.name,
        "driver": device.driver,
        "bus": device.bus,
        "dma_mask": None,
        "bus_dma_limit": None,
        "max_segment_size": None,
        "max_segment_size_declared": None,
        "segment_boundary_mask": None,
        "min_align_mask": None,
        "coherent": None,
        "iommu_group": None,
        "domain": device.domain or None,
        "domain_type": None,
        "attachments": device.attachments,
        "maps": int(counts["maps"]),
        "failed_maps": int(counts["failed_maps"]),
        "bytes": int(counts["bytes"]),
        "bounced_bytes": int(counts["bounced_bytes"]),
        "gone": device.gone,
    }
    domain = model.registry.domains.get(device.domain)
    if domain is not None:
        out["domain_type"] = domain.type_name
    if limits is not None:
        force = effective(limits, UNKNOWN)
        out |= {
            "dma_mask": limits.dma_mask,
            "bus_dma_limit": limits.bus_dma_limit,
            "max_segment_size": force.max_segment_size,
            "max_segment_size_declared": force.segment_size_source is Source.DECLARED,
            "segment_boundary_mask": force.segment_boundary_mask,
            "min_align_mask": force.min_align_mask,
            "coherent": limits.coherent,
            "iommu_group": None if limits.group == NO_GROUP else limits.group,
        }
    return out


def _processes(model: Model) -> list[dict[str, Any]]:
    rows = model.processes.counts.live()
    order = np.argsort(rows["bytes"], kind="stable")[::-1]
    return [
        {
            "pid": int(row["id"]),
            "comm": model.processes.comm(int(row["id"])),
            "events": int(row["events"]),
            "maps": int(row["maps"]),
            "failed_maps": int(row["failed_maps"]),
            "bytes": int(row["bytes"]),
        }
        for row in rows[order]
    ]
