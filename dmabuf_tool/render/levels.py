# SPDX-License-Identifier: GPL-2.0-or-later
"""Both levels of every buffer as rows: what is mapped for devices, and in contexts on top of it.

A row is a level-1 mapping that lives with one range of a context on top of it, or with none; or a
range whose level 1 has ended or belongs to another device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from dmabuf_tool.model.contexts import PROVIDERS, Context
from dmabuf_tool.model.matching import DMA, SOURCES
from dmabuf_tool.render.findings import process_object

if TYPE_CHECKING:
    import numpy as np

    from dmabuf_tool.model.model import Model

TWO_LEVEL_KEYS: Final = {
    "buffer": "id of the buffer",
    "ino": "its inode number",
    "device": "name of the device",
    "context": "id of the context level 2 is in, or null",
    "provider": "who keeps the context: iommu, drm_gpuvm, i915, ..., or null",
    "level1": "domain, domain_type, translated, address, size, segments; null: not live",
    "level2": "address, size and offset in the buffer; null: no level 2",
    "source": "dma-address, pages or unknown: what level 2 is fed from; null: no level 2",
    "nested": "level 1 translates what level 2 maps",
}

ENDED_KEYS: Final = {
    **TWO_LEVEL_KEYS,
    "level1": "as it was when level 2 ended; null: it had none of its own, or is forgotten",
    "begun_ns": "when it was mapped",
    "ended_ns": "when it ended",
    "ended_by": "pid and comm of who ended it, or null",
}
ENDED_TOLD: Final = 1000
"""Ranges told that are no more, the last ones."""


def two_level(model: Model) -> Iterator[dict[str, Any]]:
    """The table as it is now: by context and address, then mappings without level 2."""
    covered: set[int] = set()
    live = model.mappings.live
    for context in model.levels.contexts.all():
        for one in context.ranges.merged():
            covered.add(one.mapping)
            position = live.position(one.mapping) if one.mapping else -1
            row = live.rows[position] if position >= 0 else None
            yield {
                "buffer": one.buffer,
                "ino": _ino(model, one.buffer),
                "device": device_name(model, one.device or context.device),
                "context": context.id,
                "provider": provider(context),
                "level1": level1(model, row),
                "level2": {"address": one.start, "size": one.size, "offset": one.offset},
                "source": SOURCES[one.source],
                "nested": model.levels.is_nested(one),
            }
    for row in live.live():
        if int(row["id"]) not in covered:
            yield {
                "buffer": int(row["buffer"]),
                "ino": _ino(model, int(row["buffer"])),
                "device": device_name(model, int(row["device"])),
                "context": None,
                "provider": None,
                "level1": level1(model, row),
                "level2": None,
                "source": None,
                "nested": False,
            }


def ended(model: Model) -> Iterator[dict[str, Any]]:
    """Ranges that are no more, the last one first."""
    for gone in model.levels.removed.newest(ENDED_TOLD):
        one, context = gone.range, model.levels.contexts.find(gone.range.context)
        domain = model.registry.domains.get(gone.domain)
        under = {
            "domain": gone.domain or None,
            "domain_type": domain.type_name if domain is not None else None,
            "translated": bool(gone.domain),
            "address": gone.address,
            "size": gone.size,
            "segments": gone.entries,
        }
        yield {
            "buffer": one.buffer,
            "ino": _ino(model, one.buffer),
            "device": device_name(model, one.device),
            "context": one.context,
            "provider": provider(context) if context is not None else None,
            "level1": under if gone.size else None,
            "level2": {"address": one.start, "size": one.size, "offset": one.offset},
            "source": SOURCES[one.source],
            "nested": bool(gone.domain) and one.source == DMA,
            "begun_ns": one.ts_ns,
            "ended_ns": gone.ts_ns,
            "ended_by": process_object(gone.tgid, model),
        }


def level1(model: Model, row: np.void | None) -> dict[str, Any] | None:
    """Level 1 of a MAPPING row."""
    if row is None:
        return None
    site = model.registry.sites[int(row["site"])]
    domain = model.registry.domains.get(int(row["domain"]))
    return {
        "domain": int(row["domain"]) or None,
        "domain_type": domain.type_name if domain is not None else None,
        "translated": site.limits.translated,
        "address": int(row["address"]),
        "size": int(row["total"]) or int(row["size"]),
        "segments": int(row["entries"]) or int(row["nents"]),
    }


def contexts(model: Model) -> list[dict[str, Any]]:
    """All contexts as objects with the keys of report_keys.CONTEXT_KEYS."""
    return [_context(one, model) for one in model.levels.contexts.all()]


def _context(context: Context, model: Model) -> dict[str, Any]:
    mapped, size = context.mapped, context.bytes
    if not context.is_private:
        position = model.registry.domain_counts.position(context.id)
        if position >= 0:
            counts = model.registry.domain_counts.rows[position]
            mapped, size = int(counts["maps"]), int(counts["bytes"])
    devices = model.registry.devices.values()
    inside = context.device or next((d.id for d in devices if d.domain == context.id), 0)
    return {
        "id": context.id,
        "kind": context.kind,
        "device": device_name(model, inside) or None,
        "provider": provider(context),
        "pid": context.tgid or None,
        "comm": context.comm or None,
        "client": context.client or None,
        "mappings": mapped,
        "bytes": size,
        "live_bytes": context.live_bytes,
        "other_bytes": max(0, context.other_bytes),
        "born_ns": context.born_ns or None,
        "freed": bool(context.freed_ns),
    }


def provider(context: Context) -> str:
    """Who keeps a context."""
    return PROVIDERS[context.provider] if context.provider < len(PROVIDERS) else PROVIDERS[0]


def device_name(model: Model, number: int) -> str:
    """A device's name, "" if it is not known."""
    device = model.registry.devices.get(number)
    return device.name if device is not None else ""


def context_label(context: Context) -> str:
    """A context and its owner, as "vm 5 glxgears/312"."""
    word = "domain" if context.type is not None else "vm"
    owner = f" {context.comm}/{context.tgid}" if context.tgid else ""
    return f"{word} {context.id}{owner}"


def _ino(model: Model, number: int) -> int:
    buffer = model.registry.known_buffer(number)
    return buffer.ino if buffer is not None else 0
