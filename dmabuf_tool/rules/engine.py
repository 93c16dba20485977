# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace with its model and all rules: feed it batches, ask it for findings at any time."""

from __future__ import annotations

from collections.abc import Mapping

from dmabuf_tool.model.model import Model
from dmabuf_tool.model.sites import Configure
from dmabuf_tool.model.step import Step
from dmabuf_tool.rules.findings import Finding, Findings
from dmabuf_tool.rules.registry import load
from dmabuf_tool.schema import Batch


class Engine:
    """The same for live traces and captures.

    Args:
        configure: gives the limits a user configured for a device.
        thresholds: "rule-id.name" -> value.
    """

    def __init__(
        self, configure: Configure | None = None, thresholds: Mapping[str, int] | None = None
    ) -> None:
        self.model = Model(configure)
        confirms = {one.rule.id: one.confirm for one in load() if one.confirm is not None}
        self.found = Findings(self.model, thresholds, confirms)
        self._checks = [(one.rule.reads, one.check) for one in load() if one.check is not None]
        self._states = [one.check_state for one in load() if one.check_state is not None]

    def feed(self, batch: Batch) -> Step:
        """Apply a batch and check it; returns what it changed."""
        step = self.model.apply(batch)
        filled = {
            part
            for part in ("maps", "calls", "failed", "ended", "unmaps", "pins", "cpu",
                         "invalidates", "iommu", "exports", "attaches", "detaches", "releases",
                         "released", "hazards")
            if len(getattr(step, part))
        }  # fmt: skip
        self.found.begin_events()
        for reads, check in self._checks:
            if not filled.isdisjoint(reads):
                check(step, self.found)
        return step

    def findings(self) -> list[Finding]:
        """What is found up to now, the worst first."""
        self.model.sweep()
        self.found.begin_states()
        for check_state in self._states:
            check_state(self.model, self.found)
        self.found.begin_events()
        return self.found.all()
