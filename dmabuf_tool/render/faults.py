# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model says of each fault of a batch: for the fault's own line, as events have one each.

Findings tell a cause once; faults are told one by one, because each has its own buffer and unmap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmabuf_tool.model.faults import TOO_MANY
from dmabuf_tool.model.hazards import What
from dmabuf_tool.model.step import Step
from dmabuf_tool.render.findings import buffer_object, context_object, process_object
from dmabuf_tool.rules.fault_attributed import verdict
from dmabuf_tool.schema import Kind

ATTRIBUTION_KEYS: Final = {
    "verdict": "live, unmapped, another device's, never mapped; or not looked up (a flood)",
    "text": "the same in words",
    "device": "name of the device, or null",
    "buffer": "id, ino, exporter, name and size of the buffer, or null",
    "context": "id and kind of the address space, or null",
    "process": "pid and comm of whose buffer or context it is, or null",
    "evidence": "the numbers it rests on, with since_unmap_ns and unmapped_by (a pid)",
}
"""The keys of a fault's attribution."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Of one fault. `looked_up`: False in a flood. `device`: id, 0 for none."""

    text: str
    device: int
    buffer: int
    looked_up: bool
    members: dict[str, Any]


def attributions(step: Step) -> dict[int, Attribution]:
    """By the place of the fault among the batch's events."""
    place = np.flatnonzero(step.events["kind"] == Kind.FAULT)
    if not len(place):
        return {}
    # Hazards are sorted by time, and of one time as the events are.
    place = place[np.argsort(step.events["ts_ns"][place], kind="stable")]
    facts = [one for one in step.hazards if one.what is What.FAULT]
    out = {}
    for index, fact in zip(place.tolist(), facts, strict=True):
        registry, text = step.model.registry, verdict(step.model, fact)
        device = registry.devices.get(fact.device)
        members = {
            "verdict": fact.detail,
            "text": text,
            "device": device.name if device is not None else None,
            "buffer": buffer_object(registry.known_buffer(fact.buffer)),
            "context": context_object(fact.context.id if fact.context else 0, step.model),
            "process": process_object(fact.tgid, step.model),
            "evidence": fact.numbers,
        }
        looked_up = fact.detail != TOO_MANY
        out[index] = Attribution(text, fact.device, fact.buffer, looked_up, members)
    return out
