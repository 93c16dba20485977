# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of `report --format json`, as data: the manual and the tests are held against them.

Keys are only added within a schema version. Sizes in bytes, times CLOCK_MONOTONIC in ns.
"""

from __future__ import annotations

from typing import Final

from dmabuf_tool.render.findings import FINDING_KEYS
from dmabuf_tool.render.levels import ENDED_KEYS, TWO_LEVEL_KEYS

CAPTURE_KEYS: Final = {
    "file": "path as it was given",
    "host": "host name of the machine that was traced",
    "kernel": "its kernel release",
    "boot_id": "its boot",
    "start_ns": "start of the trace",
    "end_ns": "its end, or the last event if it was not closed",
    "events": "number of events",
    "lost": "events that found no room in the ring",
    "complete": "nothing was lost: no event, no scatterlist entry, no call, no object",
    "notes": "what is wrong with the file, a list of sentences",
    "withheld": "ids of findings not told because lost events could fake them",
    "buffers_forgotten": "released buffers that are not listed: only the last 4096 are",
}

BUFFER_KEYS: Final = {
    "id": "id in the capture",
    "ino": "inode number",
    "size": "size",
    "exporter": "who allocated it",
    "name": "its name, if a process gave it one",
    "attachments": "attachments made",
    "attached_now": "attachments at the end of the trace",
    "devices": "names of the devices that attached",
    "processes": "list of pid and comm: who used it",
    "union": "what the devices attached after the newest attach take together, or null",
    "preexisting": "it is older than the trace",
    "released": "it was freed",
    "maps": "maps that worked, cached tables too",
    "bytes": "bytes newly mapped",
    "cpu_accesses": "begins and ends of CPU access",
}

UNION_KEYS: Final = {
    "max_segment_size": "smallest segment size somebody stands for, or null",
    "segment_size_of": "name of the device it comes from",
    "max_segment_count": "smallest number of segments, or null",
    "count_of": "name of the device it comes from",
    "segment_boundary_mask": "boundaries and-ed, or null",
    "boundary_of": "names of the devices they come from",
    "capacity": "the largest buffer a layout exists for, null: any",
    "serves": "whether a layout exists that serves all",
    "attached": "list of the devices' own limits, each with its source",
}

DEVICE_KEYS: Final = {
    "id": "id in the capture",
    "name": "name of the device",
    "driver": "its driver",
    "bus": "its bus",
    "dma_mask": "as of its last attach, like all limits; null: never seen",
    "bus_dma_limit": "0: none",
    "max_segment_size": "what holds: declared, or the default of 65536",
    "max_segment_size_declared": "true: the driver set it",
    "segment_boundary_mask": "all ones: none",
    "min_align_mask": "0: none",
    "coherent": "its DMA is coherent with the CPU's caches",
    "iommu_group": "number of its IOMMU group, or null",
    "domain": "id of its IOMMU domain, or null",
    "domain_type": "DMA, DMA-FQ, identity, unmanaged, blocked, ... or null",
    "attachments": "attachments made",
    "maps": "maps that worked, cached tables too",
    "failed_maps": "maps that failed",
    "bytes": "bytes newly mapped",
    "bounced_bytes": "bytes copied through swiotlb at maps",
    "gone": "it was removed during the trace",
}

CONTEXT_KEYS: Final = {
    "id": "id in the capture",
    "kind": "type of the IOMMU domain (unmanaged: a driver's own), or gpu-vm",
    "device": "name of a device in it, or null",
    "provider": "who keeps it: iommu, drm_gpuvm, i915, ...",
    "pid": "owner, or null",
    "comm": "name of the owner, or null",
    "client": "DRM client id, asid or pasid, or null",
    "mappings": "mappings made in it",
    "bytes": "bytes mapped in it",
    "live_bytes": "bytes of buffers mapped in it at the end, on top of level 1",
    "other_bytes": "bytes mapped in it that belong to no buffer",
    "born_ns": "when it was made; null: before the trace",
    "freed": "it was freed during the trace",
}

PROCESS_KEYS: Final = {
    "pid": "process id",
    "comm": "name of its main thread, if that was seen",
    "events": "number of events",
    "maps": "maps that worked",
    "failed_maps": "maps that failed",
    "bytes": "bytes newly mapped",
}

LOSS_KEYS: Final = {
    "events": "events that found no room",
    "scatterlists": "scatterlist entries that found no room",
    "untracked": "objects that could not be followed",
    "calls": "calls whose entry or return was not seen",
}

DOCUMENT_KEYS: Final = {
    "schema": "name and version of this document",
    "captures": "one for each FILE",
    "findings": "the worst first, in each capture",
    "buffers": "those that live and the last ones released",
    "devices": "those that attached",
    "contexts": "address spaces",
    "processes": "those that did something",
    "two_level": "live mappings with what is mapped on top of them",
    "two_level_ended": "the last 1000 ranges of level 2 that ended, the newest first",
    "losses": "of all captures together",
}

PARTS: Final = {
    "captures": CAPTURE_KEYS,
    "findings": FINDING_KEYS,
    "buffers": BUFFER_KEYS,
    "union": UNION_KEYS,
    "devices": DEVICE_KEYS,
    "contexts": CONTEXT_KEYS,
    "processes": PROCESS_KEYS,
    "two_level": TWO_LEVEL_KEYS,
    "two_level_ended": ENDED_KEYS,
    "losses": LOSS_KEYS,
}
"""Part of the document -> its keys."""
