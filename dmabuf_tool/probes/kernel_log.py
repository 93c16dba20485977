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
from dmabuf_tool.schema import EVENT, VIEWS, Events, Kind, view

PARTS: Final = 4
"""LOG_PARTS in bpf/iommu.bpf.c."""


_SAME_NS: Final = 1_000_000
"""A line this long after an io_page_fault at its address tells of the same fault: AMD-Vi and SMMUv2
raise the tracepoint and print (report_iommu_fault(), drivers/iommu/iommu.c)."""


class KernelLog:
    """Give it all events in the order of the ring: a fault may take several lines."""

    def __init__(self) -> None:
        self._parser = Parser()
        self._raised = np.zeros(1, VIEWS["l2"])[0]
        """The last io_page_fault of earlier events."""

    def take(self, events: Events) -> Events:
        """The events with FAULT in the place of the lines that tell of one, without LOG."""
        parts = np.flatnonzero(events["kind"] == Kind.LOG)
        raised = np.flatnonzero(events["kind"] == Kind.FAULT)
        if not len(parts) and not len(raised):
            return events
        events, keep = events.copy(), events["kind"] != Kind.LOG
        texts = view(events[parts], "text")["text"].tolist()
        rows = view(events, "l2")
        for first in range(0, len(parts), PARTS):
            line = b"".join(texts[first : first + PARTS]).decode("utf-8", "replace")
            place = parts[first]
            fault = self._parser.feed(line, int(events["ts_ns"][place]))
            if fault is None:
                continue
            before = int(np.searchsorted(raised, place))
            row = rows[raised[before - 1]] if before else self._raised
            if _is_same(row, fault):
                # SMMUv2 raises the tracepoint without a device.
                row["owner"] = row["owner"] or fault.requester + 1
            else:
                events[place] = fault_event(fault)[0]
                keep[place] = True
        if len(raised):
            self._raised = rows[raised[-1]].copy()
        return events.compress(keep)


def _is_same(raised: np.void, fault: Fault) -> bool:
    """Whether an io_page_fault event is of the fault that a line tells of."""
    since = fault.ts_ns - int(raised["ts_ns"])
    return int(raised["address"]) == fault.address and 0 <= since <= _SAME_NS


def fault_event(fault: Fault) -> Events:
    """A FAULT event, of nobody: shape (1,)."""
    events = np.zeros(1, EVENT)
    row = view(events, "l2")[0]
    row["kind"], row["stack"], row["ts_ns"] = Kind.FAULT, -1, fault.ts_ns
    row["address"], row["offset"] = fault.address, fault.reason
    row["context"], row["provider"] = fault.pasid, fault.told_by
    row["owner"], row["client"] = fault.requester + 1, fault.tried
    return events
