# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of the kernel log as they come through the event ring: faults of IOMMUs, and nothing else.

The probe (bpf/iommu.bpf.c, on_kernel_log_entry()) sends a line of an IOMMU driver as four LOG
events, in one record of the ring: they follow each other. A line that tells of a fault becomes a
FAULT event with the time of the line, on CLOCK_MONOTONIC; the rest is dropped here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dmabuf_tool.kernel.faults import Fault, Parser
from dmabuf_tool.schema import EVENT, Events, Kind, view

PARTS: Final = 4
"""LOG_PARTS in bpf/iommu.bpf.c."""


class KernelLog:
    """Give it all events in the order of the ring: a fault may take several lines."""

    def __init__(self) -> None:
        self._parser = Parser()

    def take(self, events: Events) -> Events:
        """The events with FAULT in the place of the lines that tell of one, without LOG."""
        is_part = events["kind"] == Kind.LOG
        if not bool(np.any(is_part)):
            return events
        events, keep = events.copy(), ~is_part
        parts = np.flatnonzero(is_part)
        texts = view(events[parts], "text")["text"].tolist()
        for first in range(0, len(parts), PARTS):
            line = b"".join(texts[first : first + PARTS]).decode("utf-8", "replace")
            place = parts[first]
            fault = self._parser.feed(line, int(events["ts_ns"][place]))
            if fault is not None:
                events[place] = fault_event(fault)[0]
                keep[place] = True
        return events.compress(keep)


def fault_event(fault: Fault) -> Events:
    """A FAULT event, of nobody: shape (1,)."""
    events = np.zeros(1, EVENT)
    row = view(events, "l2")[0]
    row["kind"], row["stack"], row["ts_ns"] = Kind.FAULT, -1, fault.ts_ns
    row["address"], row["offset"] = fault.address, fault.reason
    row["context"], row["provider"] = fault.pasid, fault.told_by
    row["owner"], row["client"] = fault.requester + 1, fault.tried
    return events
