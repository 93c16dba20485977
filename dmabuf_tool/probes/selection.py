# SPDX-License-Identifier: GPL-2.0-or-later
"""Which events a trace keeps: by process, device and exporter.

Everything downstream (capture, model, renderers) sees the selected stream only, so that a report
on the capture says what the live trace said. What describes objects is always kept, and so are
faults, which name no process. An attachment that was selected is followed to its end, whoever ends
it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.schema import NAME_KINDS, Batch, Events, Kind, text, view

_DESCRIBING: Final = (
    Kind.BUFFER,
    Kind.EXPORT,
    Kind.RELEASE,
    Kind.RELEASED,
    Kind.DEVICE,
    Kind.DEVICE_GONE,
    Kind.DOMAIN,
    Kind.DOMAIN_FREE,
    Kind.CONTEXT,
    Kind.CONTEXT_FREE,
    Kind.FAULT,
    *NAME_KINDS,
)


@dataclass(slots=True)
class Selection:
    """Patterns may have `*`; kinds of criteria are and-ed, several of one kind or-ed."""

    pids: Sequence[int] = ()
    comms: Sequence[str] = ()
    devices: Sequence[str] = ()
    exporters: Sequence[str] = ()
    _devices: set[int] = field(default_factory=set)
    _buffers: set[int] = field(default_factory=set)
    _followed: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.pids or self.comms or self.devices or self.exporters)

    def apply(self, batch: Batch) -> Batch:
        """The batch without the events that are not selected; tables go with their maps."""
        if not self:
            return batch
        events = batch.events
        describing = np.isin(events["kind"], _DESCRIBING)
        self._learn(events[describing])
        keep = describing | self._chosen(events)
        if self.exporters:
            # Only now: a buffer may be born and gone within one batch. Ids do not come again.
            gone = events["buffer"][events["kind"] == Kind.RELEASE]
            self._buffers.difference_update(gone.tolist())
        dropped = events["mapping"][~keep & (events["kind"] == Kind.MAP)]
        tables = batch.tables[~np.isin(batch.tables["mapping"], dropped)]
        return replace(batch, events=events[keep], tables=tables)

    def _chosen(self, events: Events) -> NDArray[np.bool_]:
        chosen = np.ones(len(events), bool)
        if self.devices:
            chosen &= np.isin(events["device"], list(self._devices))
        if self.exporters:
            chosen &= np.isin(events["buffer"], list(self._buffers))
        if self.pids or self.comms:
            chosen &= self._of_process(events)
        # What a selected attach began is kept to its end, in whatever process that comes.
        attaches = events[chosen & (events["kind"] == Kind.ATTACH)]
        self._followed.update(attaches["attachment"].tolist())
        chosen |= np.isin(events["attachment"], list(self._followed)) & (
            events["kind"] != Kind.DEVICE
        )
        ended = events["attachment"][events["kind"] == Kind.DETACH]
        self._followed.difference_update(ended.tolist())
        return chosen

    def _of_process(self, events: Events) -> NDArray[np.bool_]:
        mine = np.ones(len(events), bool)
        if self.pids:
            mine &= np.isin(events["tgid"], list(self.pids))
        if self.comms:
            present = np.unique(events["comm"])
            named = [c for c in present if _matches(text(bytes(c)), self.comms)]
            mine &= np.isin(events["comm"], named)
        return mine

    def _learn(self, events: Events) -> None:
        """Take names of devices and exporters of buffers."""
        if self.devices:
            names = view(events[events["kind"] == Kind.NAME_DEVICE], "text")
            self._devices.update(
                int(e["device"]) for e in names if _matches(text(bytes(e["text"])), self.devices)
            )
        if self.exporters:
            born = view(events[np.isin(events["kind"], (Kind.BUFFER, Kind.EXPORT))], "buf")
            self._buffers.update(
                int(e["buffer"])
                for e in born
                if _matches(text(bytes(e["exporter"])), self.exporters)
            )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
