# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule is: a description as data, and functions that look for it.

A rule is one file in this package, named like its id. It has

    RULE = Rule(id=..., ...)                      what it means, why, what to do
    def check(step, found): ...                   after each batch, and/or
    def check_state(model, found): ...            of the state, whenever it is asked for
    def confirm(finding, model): ...              if only what comes later proves it (optional)

`check` says what happened: its findings add up. `check_state` says what is so now (a leak): its
findings are made anew each time. Rules hold no state; what they need to remember is the model's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


class Severity(enum.IntEnum):
    """How bad a finding is, the least first."""

    INFO = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


class OnLoss(enum.Enum):
    """What a finding is worth once events were lost."""

    KEEP = "keep"
    """It is proved by the events that are there."""
    WITHHOLD = "withhold"
    """The lost events may be what it misses: it is not raised."""


GROUPS: Final = MappingProxyType(
    {
        "A": "constraints",
        "B": "two levels and contexts",
        "C": "lifetime",
        "D": "cost",
    }
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number a rule compares with: an option with a default, shown in the evidence."""

    name: str
    default: int
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What a finding is. `explain`, the manual and the reports are made from this.

    Attributes:
        id: the slug, which is the file's name with dashes.
        group: a key of GROUPS.
        severity: the worst it can be raised with.
        title: what is wrong, in a few words.
        holds: when exactly it is raised, and with which severity.
        why: why it matters.
        source: where the kernel says so.
        advice: what to do, for a person who has just read the title.
        example: a line as the tool prints it.
        reads: which parts of a Step `check` looks at; it is not called if all are empty.
    """

    id: str
    group: str
    severity: Severity
    title: str
    holds: str
    why: str
    source: str
    advice: str
    example: str
    reads: tuple[str, ...] = ()
    on_loss: OnLoss = OnLoss.KEEP
    thresholds: tuple[Threshold, ...] = ()


Number = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Told:
    """What a rule says of the worst case: one line, its numbers, and advice if it knows better."""

    title: str
    evidence: Mapping[str, Number] = field(default_factory=dict)
    advice: str = ""
