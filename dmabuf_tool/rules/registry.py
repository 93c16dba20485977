# SPDX-License-Identifier: GPL-2.0-or-later
"""All rules, found by listing this package: to add a finding is to add a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.rules.findings import Finding, Findings

    Check = Callable[[Step, Findings], None]
    CheckState = Callable[[Model, Findings], None]
    Confirm = Callable[[Finding, Model], bool]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rule with its functions; None for what it does not have."""

    rule: Rule
    check: Check | None
    check_state: CheckState | None
    confirm: Confirm | None


@cache
def load() -> tuple[Loaded, ...]:
    """All rules, by group and id."""
    found = []
    for module_info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"{__package__}.{module_info.name}")
        rule = getattr(module, "RULE", None)
        if isinstance(rule, Rule):
            found.append(
                Loaded(
                    rule,
                    getattr(module, "check", None),
                    getattr(module, "check_state", None),
                    getattr(module, "confirm", None),
                )
            )
    return tuple(sorted(found, key=lambda loaded: (loaded.rule.group, loaded.rule.id)))


def rules() -> tuple[Rule, ...]:
    """The descriptions of all rules, by group and id."""
    return tuple(loaded.rule for loaded in load())
