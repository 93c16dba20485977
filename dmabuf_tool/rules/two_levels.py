# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rules of group B share: cases out of the model's facts, and how contexts are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.model.contexts import GPU_VM, PROVIDERS
from dmabuf_tool.model.matching import SOURCES
from dmabuf_tool.rules.base import Told
from dmabuf_tool.rules.findings import Subject
from dmabuf_tool.rules.wording import size

if TYPE_CHECKING:
    from dmabuf_tool.model.contexts import Context
    from dmabuf_tool.model.hazards import Hazard, What
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.ranges import Range
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.usage import Usage
    from dmabuf_tool.rules.base import Number, Rule, Severity
    from dmabuf_tool.rules.findings import Findings

MS = 1_000_000


def facts(step: Step, what: What) -> Iterator[Hazard]:
    """The facts of one kind, by time."""
    return (one for one in step.hazards if one.what is what)


@dataclass(frozen=True, slots=True)
class Used:
    """How one rule looks at what was mapped in a context from one source.

    `holds` says whether there is anything to tell; `counts` gives the ranges and bytes it is
    about; `words` the title without "the largest ...", which is added.
    """

    holds: Callable[[int, Usage], bool]
    counts: Callable[[Usage], tuple[int, int]]
    words: Callable[[Context, Usage, int], str]
    severity: Callable[[Usage], Severity | None] = lambda usage: None


def hand_in_usage(rule: Rule, model: Model, found: Findings, used: Used) -> None:
    """A case for each context and source of level-2 mappings since the start."""
    for (number, source), usage in sorted(model.levels.usage.items()):
        context = model.levels.contexts.find(number)
        if context is None or usage.worst is None or not used.holds(source, usage):
            continue
        found.case(
            rule,
            (number, source),
            partial(_tell_usage, model, context, usage, usage.worst, source, used),
            when=(usage.first_ns, usage.last_ns),
            severity=used.severity(usage),
            score=float(usage.bytes),
            buffers=tuple(sorted(usage.buffers)),
        )


def _tell_usage(
    model: Model, context: Context, usage: Usage, worst: Range, source: int, used: Used
) -> tuple[Told, Subject]:
    ranges, total = used.counts(usage)
    title = used.words(context, usage, source)
    return Told(
        f"{title}, the largest {sized(worst.size)} at {hexed(worst.start)}",
        {
            "ranges": ranges,
            "bytes": total,
            "source": SOURCES[source],
            "address": worst.start,
            "size": worst.size,
            "offset": worst.offset,
        },
    ), subject_of(model, context, worst)


def hand_in(
    rule: Rule,
    found: Findings,
    fact: Hazard,
    tell: Callable[[Model, Hazard], Told],
    *,
    severity: Severity | None = None,
    score: float | None = None,
) -> None:
    """Hand in a fact; its cause is the context or device, and what kind of it this is."""
    where = fact.context.id if fact.context is not None else 0
    value = fact.numbers.get("size")
    default = float(value) if isinstance(value, int) else 0.0
    found.case(
        rule,
        (where, fact.device, fact.site, fact.detail),
        partial(_tell, found.model, fact, tell),
        when=(fact.ts_ns, fact.ts_ns),
        severity=severity,
        score=default if score is None else score,
        buffers=(fact.buffer,) if fact.buffer else (),
    )


def _tell(
    model: Model, fact: Hazard, tell: Callable[[Model, Hazard], Told]
) -> tuple[Told, Subject]:
    registry = model.registry
    context = fact.context.id if fact.context is not None else 0
    return tell(model, fact), Subject(
        site=registry.sites[fact.site],
        buffer=registry.buffers.get(fact.buffer),
        device=registry.devices.get(fact.device),
        domain=context,
        tgid=fact.tgid,
    )


def subject_of(model: Model, context: Context, one: Range) -> Subject:
    """Whom a range is about."""
    row = model.levels.spans.row(one.mapping) if one.mapping else None
    known = model.registry.known_buffer(one.buffer)
    return Subject(
        site=model.registry.sites[int(row["site"]) if row is not None else 0],
        buffer=known,
        device=model.registry.devices.get(one.device or context.device),
        domain=context.id,
        tgid=context.tgid or one.tgid,
    )


def context_name(context: Context | None) -> str:
    """As a person calls it: "private domain 3", "GPU VM 5 (xe)"."""
    if context is None:
        return "an unknown context"
    if context.kind == GPU_VM:
        provider = PROVIDERS[context.provider] if context.provider < len(PROVIDERS) else "?"
        return f"GPU VM {context.id} ({context.name or provider})"
    if context.is_private:
        return f"private domain {context.id}"
    return f"{context.kind or 'domain'} {context.id}"


def hexed(value: Number) -> str:
    """An address of the evidence."""
    return f"{value:#x}" if isinstance(value, int) else "?"


def sized(value: Number) -> str:
    """A size of the evidence."""
    return size(value) if isinstance(value, int) else "?"


def person(model: Model, tgid: int) -> str:
    """A process as "comm (pid 312)"."""
    return f"{model.processes.comm(tgid) or 'process'} (pid {tgid})" if tgid else "nobody known"


def number(value: Number) -> int:
    """A number of the evidence, 0 where it has none."""
    return int(value) if isinstance(value, int | float) else 0
