# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings: each cause once, with a count, first and last time, and its worst case.

Rules hand in rows or single cases with a cause; what they say is only asked for a case that is
worse than the worst so far. Nothing depends on where the stream was cut: counts add up, and the
worst is the one of highest severity and score that came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.objects import Attachment, Buffer, Device, Site
from dmabuf_tool.model.store import Rows
from dmabuf_tool.rules.base import Number, OnLoss, Rule, Severity, Told

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model

MAX_CAUSES: Final = 4096
"""Findings kept of one rule."""
MAX_BUFFERS: Final = 4096

Cause = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a case is about; what does not apply is None or 0."""

    site: Site
    buffer: Buffer | None = None
    device: Device | None = None
    attachment: Attachment | None = None
    domain: int = 0
    tgid: int = 0


@dataclass(slots=True)
class Finding:
    """One cause: how often, when, and its worst case."""

    rule: Rule
    told: Told
    subject: Subject
    count: int
    first_ns: int
    last_ns: int
    rank: tuple[int, float, int]
    """Severity, score and earliness of the worst case."""
    buffers: set[int] = field(default_factory=set)
    """Ids of the buffers it hit, about MAX_BUFFERS at most."""

    @property
    def severity(self) -> Severity:
        """That of the worst case."""
        return Severity(self.rank[0])


@dataclass(frozen=True, slots=True)
class _Case:
    """Cases of one cause handed in together; `tell` speaks of the worst."""

    rank: tuple[int, float, int]
    count: int
    first_ns: int
    last_ns: int
    tell: Callable[[], tuple[Told, Subject]]
    buffers: NDArray[Any]


class Findings:
    """All findings of one trace."""

    def __init__(
        self,
        model: Model,
        thresholds: Mapping[str, int] | None = None,
        confirms: Mapping[str, Callable[[Finding, Model], bool]] | None = None,
    ) -> None:
        self.model = model
        self.dropped: dict[str, int] = {}
        """Rule id -> cases of causes beyond MAX_CAUSES."""
        self._thresholds = thresholds or {}
        self._confirms = confirms or {}
        self._events: dict[str, dict[Cause, Finding]] = {}
        self._states: dict[str, dict[Cause, Finding]] = {}
        self._current = self._events

    def begin_states(self) -> None:
        """What follows says what is so now; what was said of it before is forgotten."""
        self._states = {}
        self._current = self._states

    def begin_events(self) -> None:
        """What follows says what happened in a batch."""
        self._current = self._events

    def threshold(self, rule: Rule, name: str) -> int:
        """A threshold of a rule: configured as "rule-id.name", or its default."""
        for threshold in rule.thresholds:
            if threshold.name == name:
                return self._thresholds.get(f"{rule.id}.{name}", threshold.default)
        raise KeyError(f"{rule.id} has no threshold {name}")

    def all(self) -> list[Finding]:
        """Findings, the worst and most frequent first; those that losses can fake left out."""
        lossy = bool(self.model.losses)
        out = []
        for rule_id in {**self._events, **self._states}:
            together = dict(self._events.get(rule_id, {}))
            for cause, state in self._states.get(rule_id, {}).items():
                event = together.get(cause)
                together[cause] = state if event is None else _merge(event, state)
            confirm = self._confirms.get(rule_id)
            out += [
                finding
                for finding in together.values()
                if finding.count
                and not (lossy and finding.rule.on_loss is OnLoss.WITHHOLD)
                and (confirm is None or confirm(finding, self.model))
            ]
        return sorted(out, key=_order)

    def withheld(self) -> list[str]:
        """Rules that would have found something, had nothing been lost."""
        if not self.model.losses:
            return []
        return sorted(
            {
                finding.rule.id
                for table in (self._events, self._states)
                for causes in table.values()
                for finding in causes.values()
                if finding.rule.on_loss is OnLoss.WITHHOLD
            }
        )

    def rows(
        self,
        rule: Rule,
        rows: Rows,
        *,
        score: NDArray[Any],
        tell: Callable[[np.void, Site], Told],
        severity: Severity | None = None,
        split: NDArray[Any] | None = None,
        at: str = "ts_ns",
        counted: bool = True,
    ) -> None:
        """Hand in cases that are MAPPING rows; the cause is their site.

        Args:
            rows: the cases, in the order of the stream, shape (n,).
            score: how bad each is, shape (n,).
            tell: says it of one row, with its site.
            severity: other than the rule's.
            split: numbers below 2**32 that tell causes of one site apart, shape (n,).
            at: the field with the time of the case.
            counted: False if these cases were handed in before, with a milder severity.
        """
        if not len(rows):
            return
        site = rows["site"]
        other = np.where(site == 0, rows["device"], 0) if split is None else split
        cause = (site.astype(np.uint64) << np.uint64(32)) | (
            other.astype(np.int64).astype(np.uint64) & np.uint64(0xFFFF_FFFF)
        )
        seq = rows["seq" if at == "ts_ns" else "end_seq"]
        for number in np.unique(cause).tolist():
            index = np.flatnonzero(cause == number)
            worst = int(index[np.argmax(score[index])])
            row = rows[worst]
            times = rows[at][index]
            self._put(
                rule,
                (number,),
                _Case(
                    rank=(int(rule.severity if severity is None else severity),
                          float(score[worst]), -int(seq[worst])),
                    count=len(index) if counted else 0,
                    first_ns=int(times.min()),
                    last_ns=int(times.max()),
                    tell=partial(self._tell_row, tell, row),
                    buffers=rows["buffer"][index],
                ),
            )  # fmt: skip

    def _tell_row(
        self, tell: Callable[[np.void, Site], Told], row: np.void
    ) -> tuple[Told, Subject]:
        return tell(row, self.model.registry.sites[int(row["site"])]), self.subject(row)

    def case(
        self,
        rule: Rule,
        cause: Cause,
        tell: Callable[[], tuple[Told, Subject]],
        *,
        when: tuple[int, int],
        severity: Severity | None = None,
        score: float = 0.0,
        buffers: tuple[int, ...] = (),
        count: int = 1,
    ) -> None:
        """Hand in one case; of the same score the earliest counts as the worst.

        Args:
            cause: what tells it from other findings of the rule.
            tell: says it, and of whom.
            when: first and last time, ns.
            severity: other than the rule's.
            score: how bad it is.
            buffers: ids of the buffers it hit.
            count: how many cases it stands for.
        """
        level = rule.severity if severity is None else severity
        rank = (int(level), score, -when[0])
        self._put(
            rule, cause, _Case(rank, count, when[0], when[1], tell, np.array(buffers, np.uint32))
        )

    def subject(self, row: np.void) -> Subject:
        """Whom a MAPPING row is about."""
        registry = self.model.registry
        return Subject(
            buffer=registry.buffers.get(int(row["buffer"])),
            device=registry.devices.get(int(row["device"])),
            site=registry.sites[int(row["site"])],
            attachment=registry.attachments.get(int(row["attachment"])),
            domain=int(row["domain"]),
            tgid=int(row["tgid"]),
        )

    def subject_of(self, attachment: Attachment) -> Subject:
        """Whom an attachment is about."""
        return Subject(
            buffer=attachment.buffer,
            device=self.model.registry.devices.get(attachment.device),
            site=attachment.site,
            attachment=attachment,
            domain=attachment.site.limits.domain,
            tgid=attachment.tgid,
        )

    def subject_of_buffer(self, buffer: Buffer) -> Subject:
        """Whom a buffer is about: with the device attached last, and who exported it."""
        site = buffer.together[-1] if buffer.together else self.model.registry.sites[0]
        return Subject(
            buffer=buffer,
            device=self.model.registry.devices.get(site.device),
            site=site,
            tgid=buffer.tgid,
        )

    def subject_at(self, event: np.void) -> Subject:
        """Whom an event with an attachment is about."""
        registry = self.model.registry
        attachment = registry.attachments.get(int(event["attachment"]))
        if attachment is not None:
            return replace(self.subject_of(attachment), tgid=int(event["tgid"]))
        return Subject(
            buffer=registry.buffers.get(int(event["buffer"])),
            device=registry.devices.get(int(event["device"])),
            site=registry.sites[0],
            tgid=int(event["tgid"]),
        )

    def _put(self, rule: Rule, cause: Cause, case: _Case) -> None:
        causes = self._current.setdefault(rule.id, {})
        finding = causes.get(cause)
        if finding is None:
            if len(causes) >= MAX_CAUSES:
                self.dropped[rule.id] = self.dropped.get(rule.id, 0) + case.count
                return
            told, subject = case.tell()
            finding = causes[cause] = Finding(
                rule, told, subject, 0, case.first_ns, case.last_ns, case.rank
            )
        elif case.rank > finding.rank:
            finding.rank = case.rank
            finding.told, finding.subject = case.tell()
        finding.count += case.count
        finding.first_ns = min(finding.first_ns, case.first_ns)
        finding.last_ns = max(finding.last_ns, case.last_ns)
        if len(finding.buffers) < MAX_BUFFERS:
            finding.buffers.update(np.unique(case.buffers[case.buffers != 0]).tolist())


def _merge(event: Finding, state: Finding) -> Finding:
    worst, other = (state, event) if state.rank > event.rank else (event, state)
    return replace(
        worst,
        count=event.count + state.count,
        first_ns=min(event.first_ns, state.first_ns),
        last_ns=max(event.last_ns, state.last_ns),
        buffers=worst.buffers | other.buffers,
    )


def _order(finding: Finding) -> tuple[Any, ...]:
    return (
        -finding.severity,
        finding.rule.group,
        finding.rule.id,
        -finding.count,
        finding.first_ns,
        finding.told.title,
    )


def evidence_of(finding: Finding) -> dict[str, Number]:
    """The numbers of a finding, with how many buffers its cause hit, as far as counted."""
    evidence = dict(finding.told.evidence)
    known = len(finding.buffers)
    if known > 1:
        evidence["buffers" if known < MAX_BUFFERS else "buffers_at_least"] = known
    return evidence
