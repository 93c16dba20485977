# SPDX-License-Identifier: GPL-2.0-or-later
"""What a batch does in one private domain, and which of its changes touch the same addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.contexts import Context
from dmabuf_tool.model.objects import NEVER
from dmabuf_tool.model.store import Rows

Mask = NDArray[np.bool_]
U64 = NDArray[np.uint64]

CUT: Final = np.dtype(
    [
        ("start", "<u8"),
        ("last", "<u8"),
        ("ts_ns", "<u8"),
        ("seq", "<u8"),
        ("tgid", "<u4"),
        ("does", "?"),  # something was unmapped
        ("whole", "?"),  # all that was asked
    ]
)
"""An unmap, or (with `seq` 0) a map that was refused; `last` is its last byte."""
MAP, UNMAP, REFUSED = 0, 1, 2
"""Kinds of changes."""


@dataclass(slots=True)
class Work:
    """What a batch does in one context, in the order of the stream: RANGE rows of what is mapped,
    CUT rows of what is unmapped and of what was refused."""

    context: Context
    rows: Rows
    nested: Mask
    pageless: Mask
    cuts: Rows
    refused: Rows


class Clusters:
    """Maps (as runs), unmaps and refused maps of a context by address."""

    def __init__(self, work: Work, runs: Rows) -> None:
        parts = (runs, work.cuts, work.refused)
        counts = [len(part) for part in parts]
        start: U64 = np.concatenate([part["start"] for part in parts])
        last: U64 = np.concatenate([part["last"] for part in parts])
        seq: U64 = np.concatenate([part["seq"] for part in parts])
        order = np.lexsort((seq, start))
        self.kind = np.repeat(np.array([MAP, UNMAP, REFUSED], np.uint8), counts)[order]
        self.number = np.concatenate([np.arange(count) for count in counts])[order]
        """Index of each change in its part."""
        self.seq = seq[order]
        start, last = start[order], last[order]
        reach: U64 = np.maximum.accumulate(last)
        self.begins = np.concatenate([[True], start[1:] > reach[:-1]])
        self.first = np.flatnonzero(self.begins)
        self.of = np.cumsum(self.begins) - 1
        """Cluster of each change."""
        self.start, self.last = start[self.first], last[self.first]
        self.reach = reach[np.append(self.first[1:], len(start)) - 1]
        self.alike = (start == self.start[self.of]) & (last == self.last[self.of])

    def all(self, good: Mask) -> Mask:
        """Which clusters have only good changes."""
        found: Mask = np.logical_and.reduceat(good, self.first)
        return found

    def ends(self) -> U64:
        """Where each change of a simple cluster is undone by the next one, NEVER if it is not."""
        ends: U64 = np.full(len(self.seq), NEVER, np.uint64)
        ends[:-1] = np.where(self.begins[1:], np.uint64(NEVER), self.seq[1:])
        return ends
