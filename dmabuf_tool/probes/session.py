# SPDX-License-Identifier: GPL-2.0-or-later
"""A live trace: drains the rings of loaded probes and gives batches.

What leaves here holds no kernel pointers: page pointers of scatterlist entries become physical
addresses, call stacks become names.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.probes import bpf, maps
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.namer import Namer
from dmabuf_tool.probes.ring import ChunkRing, EventRing
from dmabuf_tool.probes.source import Options
from dmabuf_tool.schema import PAGE_NONE, PAGE_UNKNOWN, SEGMENT, Batch, Events, Losses

_COUNTERS: Final = 5
"""ST_COUNT in bpf/events.h."""

_COUNT_EVERY_NS: Final = 1_000_000_000
_NAMES_WITHIN_NS: Final = 10_000_000_000
"""How long a batch waits for the names of its stacks before it goes on with `?` frames."""


@dataclass(slots=True)
class _Waiting:
    """A batch whose stacks are being named."""

    batch: Batch
    unnamed: set[int]
    since_ns: int


class Session:
    """A running trace. `read()` as often as the rings need it; `close()` detaches."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded = loaded
        self._events = EventRing(loaded.maps["events"], options.event_ring)
        self._chunks = ChunkRing(loaded.maps["chunks"], options.chunk_ring)
        self._namer = Namer()
        self._asked: set[int] = set()
        self._waiting: deque[_Waiting] = deque()
        self._losses = Losses()
        self._counted_ns = 0
        self._flags_known = loaded.has_dma_flags
        self.ways = loaded.ways
        self.dropped_iommu = 0
        """iommu_map and iommu_unmap calls that were not ours, counted and left in the kernel."""

    @property
    def fill(self) -> float:
        """How full the fuller ring is, 0 to 1: drain sooner as it grows."""
        return max(ring.window()[1] / ring.size for ring in (self._events, self._chunks))

    def read(self) -> list[Batch]:
        """What happened since the last call, as far as its stacks have names.

        Events are taken first: the chunks of a map are sent before its event, so those of every
        event taken are in the ring by then.
        """
        events = self._events.read()
        tables, raw = self._chunks.read()
        before = self._losses
        self._count()
        if len(events) or len(tables) or self._losses != before:
            batch = Batch(events, tables, self._normalize(raw), {}, self._losses)
            self._waiting.append(_Waiting(batch, self._ask(events), time.monotonic_ns()))
        return self._named()

    def finish(self) -> list[Batch]:
        """The rest: detach nothing, but wait for what is under way."""
        self._counted_ns = 0
        batches = self.read()
        while self._waiting:
            time.sleep(0.01)
            batches += self._named()
        return batches

    def close(self) -> None:
        """Detach the probes and unmap the rings."""
        self._namer.close()
        self._events.close()
        self._chunks.close()
        self._loaded.close()

    def _count(self) -> None:
        """Read the loss counters, once a second: it is 25 system calls."""
        now = time.monotonic_ns()
        if now - self._counted_ns < _COUNT_EVERY_NS:
            return
        self._counted_ns = now
        events, segments, untracked, calls, dropped = maps.counters(
            self._loaded.maps["stats"], _COUNTERS
        )
        self.dropped_iommu = dropped
        # A skipped run of a program is a call that was not seen.
        calls += sum(bpf.program_misses(fd) for fd in self._loaded.programs.values())
        self._losses = Losses(events, segments, untracked, calls)

    def _ask(self, events: Events) -> set[int]:
        """Send stacks seen for the first time to be named; returns their keys."""
        keys = np.unique(events["stack"]).tolist() if len(events) else []
        new = {key for key in keys if key >= 0 and key not in self._asked}
        self._asked |= new
        for key in new:
            self._namer.ask(key, maps.stack(self._loaded.maps["stacks"], key))
        return new

    def _named(self) -> list[Batch]:
        """Batches from the front of the queue whose stacks all have names, or waited too long."""
        if not self._waiting:
            return []
        answers = self._namer.answers()
        now = time.monotonic_ns()
        for waiting in self._waiting:
            mine = waiting.unnamed & answers.keys()
            late = now - waiting.since_ns > _NAMES_WITHIN_NS or not self._namer.alive
            if late:
                mine = waiting.unnamed
            if mine:
                stacks = {key: answers.get(key, ("?",)) for key in mine}
                waiting.batch = replace(waiting.batch, stacks={**waiting.batch.stacks, **stacks})
                waiting.unnamed -= mine
        batches = []
        while self._waiting and not self._waiting[0].unnamed:
            batches.append(self._waiting.popleft().batch)
        return batches

    def _normalize(self, raw: NDArray[np.uint64]) -> NDArray[Any]:
        """struct scatterlist as SEGMENT, shape (m,), without pointers."""
        segments = np.ascontiguousarray(raw).view(SEGMENT).reshape(len(raw))
        pointers = segments["page"] & ~np.uint64(3)
        segments["page"] = np.where(pointers == 0, np.uint64(PAGE_NONE), np.uint64(PAGE_UNKNOWN))
        if not self._flags_known:
            segments["dma_flags"] = 0  # padding, up to 6.2 without P2PDMA
        return segments
