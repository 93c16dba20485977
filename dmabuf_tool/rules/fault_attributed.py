# SPDX-License-Identifier: GPL-2.0-or-later
"""fault-attributed: an IOMMU fault, and whose address it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.faults import A_SECOND, ENDED, NEVER_MAPPED, OTHER, TOO_MANY
from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import (
    MS,
    context_name,
    facts,
    hand_in,
    hexed,
    number,
    person,
)

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="fault-attributed",
    group="B",
    severity=Severity.ERROR,
    title="an IOMMU fault, and whose address it was",
    holds="An IOMMU reported a fault. The address is looked up as of its time: a live "
    "mapping, one that ended up to 12 s before, another device's or context's, or none. In "
    "trace each fault is an event with its own answer, up to 100 a second of a device.",
    why="The device's access was stopped: a transfer is incomplete, a picture torn, a job dead.",
    source="Intel VT-d and SMMUv3 tell only the kernel log (drivers/iommu/intel/dmar.c, "
    "drivers/iommu/arm/arm-smmu-v3/); others raise the tracepoint iommu:io_page_fault.",
    advice="Stop the device before the mapping is taken away: wait for its fences, then unmap.",
    example="fault at 0xfff00000 (read): belonged to buffer ino 41, unmapped 3.1 ms before by "
    "app (pid 312)",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.FAULT):
        hand_in(RULE, found, fact, tell)


def tell(model: Model, fact: Hazard) -> Told:
    """Whose address it was, in a line."""
    numbers = fact.numbers
    head = f"fault at {hexed(numbers['address'])} ({numbers['tried']}): "
    return Told(head + verdict(model, fact), numbers)


def verdict(model: Model, fact: Hazard) -> str:
    """The same without the address."""
    numbers = fact.numbers
    buffer = model.registry.known_buffer(fact.buffer)
    whose = f"buffer ino {buffer.ino}" if buffer is not None else "a buffer not known any more"
    where = f" in {context_name(fact.context)}" if numbers.get("level") == 2 else ""
    if fact.detail == TOO_MANY:
        return f"not looked up, {A_SECOND} faults of this device in that second were"
    if fact.detail == NEVER_MAPPED:
        return "no dma-buf was mapped there in the last 12 s"
    gone = ""
    if "since_unmap_ns" in numbers:
        since = number(numbers["since_unmap_ns"]) / MS
        by = person(model, number(numbers["unmapped_by"]))
        gone = f", unmapped {since:.1f} ms before by {by}"
    if fact.detail == OTHER:
        other = model.registry.devices.get(number(numbers["other_device"]))
        name = other.name if other is not None else "another device"
        return f"mapped for {name}{where}, not for this device: {whose}{gone}"
    if fact.detail == ENDED:
        return f"belonged to {whose}{where}{gone}"
    if "device_in" in numbers:
        now = context_name(model.levels.contexts.find(number(numbers["device_in"])))
        return f"{whose} is mapped there, but the device is in {now}"
    allowed = f", mapped {numbers['direction']}" if "direction" in numbers else ""
    return f"{whose} is mapped there{where}{allowed}"
