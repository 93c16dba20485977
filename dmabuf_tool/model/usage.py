# SPDX-License-Identifier: GPL-2.0-or-later
"""What was mapped in each context from each source since the start. No number depends on the order
in which it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.ranges import Range, range_of
from dmabuf_tool.model.store import Rows

_BUFFERS_COUNTED: Final = 4096


@dataclass(slots=True)
class Usage:
    """What was mapped in a context from one source since the start.

    `nested` counts ranges whose level 1 translates, `pageless` those of tables without pages;
    `worst` is the largest range, the first of its size.
    """

    count: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    nested: int = 0
    nested_bytes: int = 0
    pageless: int = 0
    buffers: set[int] = field(default_factory=set)
    worst: Range | None = None

    def seen(self, first_ns: int, last_ns: int) -> None:
        """Something was mapped in this time."""
        self.first_ns = min(self.first_ns, first_ns) if self.first_ns else first_ns
        self.last_ns = max(self.last_ns, last_ns)

    def compare(self, one: Range) -> None:
        """Is it the worst?"""
        worst = self.worst
        if worst is None or (one.size, -one.seq) >= (worst.size, -worst.seq):
            self.worst = one


class Usages(dict[tuple[int, int], Usage]):
    """(context, source) -> what was mapped."""

    def of(self, context: int, source: int) -> Usage:
        """Made at first sight."""
        return self.setdefault((context, source), Usage())

    def add(self, one: Range, size: int, count: int, nested: bool, pageless: bool) -> None:
        """`count` ranges (0: a range went on), of which `one` is the whole."""
        usage = self.of(one.context, one.source)
        usage.seen(one.ts_ns, one.ts_ns)
        usage.count += count
        usage.bytes += size
        if nested:
            usage.nested += count
            usage.nested_bytes += size
        if pageless:
            usage.pageless += count
        if len(usage.buffers) < _BUFFERS_COUNTED:
            usage.buffers.add(one.buffer)
        usage.compare(one)

    def add_rows(self, rows: Rows, nested: NDArray[np.bool_], pageless: NDArray[np.bool_]) -> None:
        """RANGE rows, shape (n,), in the order of the stream."""
        size = rows["last"] - rows["start"] + np.uint64(1)
        for source in np.unique(rows["source"]).tolist():
            for context in np.unique(rows["context"][rows["source"] == source]).tolist():
                mine = (rows["source"] == source) & (rows["context"] == context)
                usage = self.of(context, source)
                times = rows["ts_ns"][mine]
                usage.seen(int(times.min()), int(times.max()))
                usage.count += len(times)
                usage.bytes += int(size[mine].sum())
                usage.nested += int(np.count_nonzero(nested & mine))
                usage.nested_bytes += int(size[nested & mine].sum())
                usage.pageless += int(np.count_nonzero(pageless & mine))
                room = _BUFFERS_COUNTED - len(usage.buffers)
                if room > 0:
                    usage.buffers.update(np.unique(rows["buffer"][mine])[:room].tolist())
                place = np.flatnonzero(mine)
                worst = place[int(np.argmax(size[mine]))]
                usage.compare(range_of(rows[worst].item()))
