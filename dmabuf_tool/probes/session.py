# SPDX-License-Identifier: GPL-2.0-or-later
"""A live trace: drains the rings of loaded probes and gives batches.

A thread empties the rings into memory, on a timer that runs faster as they fill: a wake-up for
every event would cost the traced path 400 ns, and whatever the main thread is busy with (rules, a
slow terminal) must not let the rings run over.

What leaves here holds no kernel pointers: page pointers of scatterlist entries become physical
addresses, call stacks become names.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.probes import bpf, maps, pages
from dmabuf_tool.probes.kernel_log import KernelLog
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.namer import Namer
from dmabuf_tool.probes.ring import ChunkRing, EventRing
from dmabuf_tool.probes.source import Options
from dmabuf_tool.schema import (
    EVENT,
    SEGMENT,
    TABLE,
    Batch,
    Events,
    Losses,
)

_COUNTERS: Final = 5
"""ST_COUNT in bpf/events.h."""

_COUNT_EVERY_NS: Final = 1_000_000_000

_DRAIN_S: Final = 0.02
_DRAIN_FULL_S: Final = 0.001
_FULL: Final = 0.1
"""Rings fuller than this are drained again at once."""

_BACKLOG_BYTES: Final = 256 << 20
"""What may wait in memory for the main thread; beyond it the kernel counts losses."""

_Drained = tuple[Events, NDArray[Any], NDArray[np.uint64]]
"""Events, chunk headers and raw entries of one drain."""


class Session:
    """A running trace. `start()`, `read()` as often as the rings need it; `close()` detaches."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded = loaded
        self._events = EventRing(loaded.maps["events"], options.event_ring)
        self._chunks = ChunkRing(loaded.maps["chunks"], options.chunk_ring)
        self._log = KernelLog()
        self.naming_problem = ""
        """Why stacks get no names; "" if they do."""
        self._namer: Namer | None = None
        with self._naming():
            self._namer = Namer()
        self._drained: list[_Drained] = []
        self._backlog = 0
        self._draining = threading.Lock()
        self._ended = threading.Event()
        self._named: set[int] = set()
        self._losses = Losses()
        # Returns are attached before entries: what was under way then is no loss of this trace.
        self._calls_before = self._calls_lost()
        self._counted_ns = 0
        self._flags_known = loaded.has_dma_flags
        self._pages = pages.find(loaded.page_struct_size)
        self.ways = loaded.ways
        self.dropped_iommu = 0
        """iommu_map and iommu_unmap calls that were not ours, counted and left in the kernel."""
        self.nameless = 0
        """Call stacks without names: who imports there is unknown."""
        self._thread = threading.Thread(target=self._drain, name="drain", daemon=True)

    def start(self) -> None:
        """Begin to drain in a thread, which has the rights that the process has now."""
        self._thread.start()

    def read(self) -> Batch | None:
        """What happened since the last call; None if nothing did."""
        self._drain_once()
        with self._draining:
            parts, self._drained, self._backlog = self._drained, [], 0
        events, tables, raw = _join(parts)
        events = self._log.take(events)
        before = self._losses
        self._count()
        if not (len(events) or len(tables) or self._losses != before):
            return None
        return Batch(events, tables, self._normalize(raw), self._stacks(events), self._losses)

    def finish(self) -> Batch | None:
        """The rest, to the last event sent before this call."""
        self._ended.set()
        self._thread.join()
        self._counted_ns = 0
        return self.read()

    def close(self) -> None:
        """Detach the probes and unmap the rings."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._namer is not None:
            self._namer.close()
        self._events.close()
        self._chunks.close()
        self._loaded.close()

    def _drain(self) -> None:
        """The thread: copy what is in the rings, until told to end; then once more."""
        while not self._ended.is_set():
            full = self._drain_once() > _FULL
            # Not ended.wait(), which makes an idle trace a quarter dearer.
            time.sleep(_DRAIN_FULL_S if full else _DRAIN_S)
        self._drain_once()

    def _drain_once(self) -> float:
        """Empty both rings; returns how full the fuller one was, 0 to 1.

        Events are taken first: the chunks of a map are sent before its event, so those of every
        event taken are in the ring by then.
        """
        with self._draining:
            fill = max(ring.window()[1] / ring.size for ring in (self._events, self._chunks))
            if fill and self._backlog < _BACKLOG_BYTES:
                events = self._events.read()
                tables, raw = self._chunks.read()
                self._backlog += events.nbytes + raw.nbytes
                self._drained.append((events, tables, raw))
        return fill

    def _count(self) -> None:
        """Read the loss counters, once a second: it is 25 system calls."""
        now = time.monotonic_ns()
        if now - self._counted_ns < _COUNT_EVERY_NS:
            return
        self._counted_ns = now
        events, segments, untracked, _, dropped = maps.counters(
            self._loaded.maps["stats"], _COUNTERS
        )
        self.dropped_iommu = dropped
        calls = self._calls_lost() - self._calls_before
        self._losses = Losses(events, segments, untracked, calls)

    def _calls_lost(self) -> int:
        """Calls whose entry or return went unseen, since the probes were attached."""
        _, _, _, calls, _ = maps.counters(self._loaded.maps["stats"], _COUNTERS)
        misses = {name: bpf.program_misses(fd) for name, fd in self._loaded.programs.items()}
        taken = self._loaded.maps.get("taken", -1)
        return calls + lost_calls(
            misses, self._loaded.twins, lambda number: maps.counters(taken, 1, number)[0]
        )

    def _stacks(self, events: Events) -> dict[int, tuple[str, ...]]:
        """The names of stacks seen for the first time, by key."""
        keys = np.unique(events["stack"]).tolist() if len(events) else []
        new = {key for key in keys if key >= 0} - self._named
        self._named |= new
        named: dict[int, tuple[str, ...]] = {}
        if self._namer is not None:
            with self._naming():
                for key in new:
                    named[key] = self._namer.frames(maps.stack(self._loaded.maps["stacks"], key))
        self.nameless += len(new) - len(named)
        return dict.fromkeys(new, ("?",)) | named

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Go on without names where the kernel gives none."""
        try:
            yield
        except bpf.LoadError as error:
            self.naming_problem = f"{error}"

    def _normalize(self, raw: NDArray[np.uint64]) -> NDArray[Any]:
        """struct scatterlist as SEGMENT, shape (m,), without pointers."""
        segments = np.ascontiguousarray(raw).view(SEGMENT).reshape(len(raw))
        segments["page"] = self._pages.physical(segments["page"] & ~np.uint64(3))
        if not self._flags_known:
            segments["dma_flags"] = 0  # padding, up to 6.2 without P2PDMA
        return segments


def lost_calls(
    misses: dict[str, int],
    twins: Mapping[str, tuple[str, int]],
    taken: Callable[[int], int],
) -> int:
    """Calls that no program saw, by the runs the kernel skipped of each.

    A skipped run of a program without a twin is a call that was not seen. Of two, the second tells
    what the first was skipped for (`taken`, to be asked after the misses were read: a call that is
    being told must not look lost), unless it is skipped as well.
    """
    alone = dict(misses)
    lost = 0
    for first, (second, number) in twins.items():
        skipped, both = alone.pop(first), alone.pop(second)
        if skipped and both:
            lost += max(0, min(skipped - taken(number), both))
    return lost + sum(alone.values())


def _join(parts: list[_Drained]) -> _Drained:
    """Several drains as one; table offsets follow the entries."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, EVENT), np.empty(0, TABLE), np.empty((0, 4), np.uint64)
    before = 0
    for _, tables, raw in parts:
        tables["offset"] += np.uint64(before)
        before += len(raw)
    return (
        np.concatenate([events for events, _, _ in parts]),
        np.concatenate([tables for _, tables, _ in parts]),
        np.concatenate([raw for _, _, raw in parts]),
    )
