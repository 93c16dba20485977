# SPDX-License-Identifier: GPL-2.0-or-later
"""mapped-twice: something was mapped again while it was mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.model.hazards import What
from dmabuf_tool.rules.base import Rule, Severity, Told
from dmabuf_tool.rules.two_levels import context_name, facts, hand_in, hexed, sized

if TYPE_CHECKING:
    from dmabuf_tool.model.hazards import Hazard
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="mapped-twice",
    group="B",
    severity=Severity.ERROR,
    title="something was mapped again while it was mapped",
    holds="An attachment was mapped again before it was unmapped (warning: legal in the core, "
    "but no importer needs it), or an address of a context was bound again: error if "
    "the new binding took its place, warning if it was refused, or if it was the same range of a "
    "private domain (of a GPU VM that is an update).",
    why="The first mapping is easily forgotten and leaks; an address that was overwritten "
    "leaves the device with a view nobody expects; of a range mapped twice the first unmap takes "
    "away both.",
    source="drivers/dma-buf/dma-buf.c, dma_buf_map_attachment(); drivers/gpu/drm/drm_gpuvm.c, "
    "drm_gpuva_insert() refuses with -EEXIST.",
    advice="Unmap before mapping again; look for two paths in the importer that map the same "
    "attachment.",
    example="one attachment mapped 2 times at once: 1.0 MiB at 0xffe00000 and 0xfff00000",
    reads=("hazards",),
)


def check(step: Step, found: Findings) -> None:
    """Look at the facts of a batch."""
    for fact in facts(step, What.TWICE):
        severity = Severity.ERROR if fact.severe else Severity.WARNING
        hand_in(RULE, found, fact, _tell, severity=severity)


def _tell(model: Model, fact: Hazard) -> Told:
    numbers = fact.numbers
    if fact.detail == "one attachment":
        before = numbers["before_dma_address"]
        return Told(
            f"one attachment mapped {numbers['live']} times at once: {sized(numbers['size'])} at "
            f"{hexed(numbers['dma_address'])}, before at {hexed(before)}",
            numbers,
        )
    if fact.detail == "one range over itself":
        return Told(
            f"{sized(numbers['size'])} at {hexed(numbers['address'])} in "
            f"{context_name(fact.context)} mapped again over itself",
            numbers,
        )
    how = "took the place of" if fact.severe else "was refused over"
    return Told(
        f"a second binding in {context_name(fact.context)} {how} {sized(numbers['size'])} at "
        f"{hexed(numbers['address'])}",
        numbers,
    )
