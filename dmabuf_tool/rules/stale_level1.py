# SPDX-License-Identifier: GPL-2.0-or-later
"""stale-level1: level 2 targets a level-1 mapping that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.rules.base import OnLoss, Rule, Severity, Threshold, Told
from dmabuf_tool.rules.two_levels import (
    MS,
    context_name,
    facts,
    hand_in,
    hexed,
    number,
    sized,
)

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="stale-level1",
    group="B",
    severity=Severity.ERROR,
    title="level 2 targets a level-1 mapping that has ended",
    holds="A level-1 mapping ended and grace_ms later a range of a context still targets it. "
    "Error if a translating domain removed the address, warning if the address is a "
    "physical one.",
    why="The device reaches an address that is not the buffer's any more: a fault at best, "
    "somebody else's memory at worst.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_unmap_attachment(): the addresses are dead when "
    "it is called.",
    advice="Take the range out of the context (and flush its TLB) before the attachment is "
    "unmapped.",
    example="64.0 KiB at 0x40000000 in private domain 3 target a mapping that ended 30.6 ms before",
    reads=("hazards",),
    on_loss=OnLoss.WITHHOLD,
    thresholds=(Threshold("grace_ms", 20, "ms", "time between the ends of level 1 and level 2"),),
)


def check(step: Step, found: Findings) -> None:
    """Look at the ranges that went away."""
    grace_ns = found.threshold(RULE, "grace_ms") * MS
    for fact in facts(step, What.STALE_ENDED):
        late = number(fact.numbers["stale_ns"])
        if late >= grace_ns:
            severity = Severity.ERROR if fact.severe else Severity.WARNING
            hand_in(RULE, found, fact, _tell, severity=severity, score=float(late))


def check_state(model: Model, found: Findings) -> None:
    """Look at the ranges that are there."""
    grace_ns = found.threshold(RULE, "grace_ms") * MS
    for mapping, ended_ns in sorted(model.levels.stale.items()):
        late = model.last_ns - ended_ns
        if late < grace_ns:
            continue
        for one in sorted(model.levels.on_top(mapping), key=lambda one: (one.context, one.start)):
            row = model.levels.spans.row(mapping)
            context = model.levels.contexts.find(one.context)
            fact = Hazard(What.STALE_ENDED, ended_ns, context, one.buffer, one.device, mapping)
            fact.tgid = context.tgid if context is not None and context.tgid else one.tgid
            fact.site = int(row["site"]) if row is not None else 0
            fact.numbers = {"address": one.start, "size": one.size, "offset": one.offset,
                            "stale_ns": late, "still_mapped": True}  # fmt: skip
            nested = model.levels.is_nested(one)
            severity = Severity.ERROR if nested else Severity.WARNING
            hand_in(RULE, found, fact, _tell, severity=severity, score=float(late))


def _tell(model: Model, fact: Hazard) -> Told:
    since = number(fact.numbers["stale_ns"]) / MS
    still = "still " if fact.numbers.get("still_mapped") else ""
    verb = "target" if still else "targeted"
    return Told(
        f"{sized(fact.numbers['size'])} at {hexed(fact.numbers['address'])} in "
        f"{context_name(fact.context)} {still}{verb} a mapping that ended {since:.1f} ms before",
        fact.numbers,
    )
