# SPDX-License-Identifier: GPL-2.0-or-later
"""A live trace: loads the probes, drains the rings, gives batches.

What leaves here holds no kernel pointers: page pointers of scatterlist entries become physical
addresses, call stacks become names.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.kernel import symbols
from dmabuf_tool.probes import bpf, maps
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.ring import ChunkRing, EventRing
from dmabuf_tool.probes.source import Options
from dmabuf_tool.schema import (
    PAGE_NONE,
    PAGE_UNKNOWN,
    SEGMENT,
    Batch,
    Events,
    Losses,
)

_COUNTERS: Final = 5
"""ST_COUNT in bpf/events.h."""

_OWN_FRAMES: Final = ("bpf_prog_", "bpf_trampoline_", "bpf_get_stackid", "__bpf_prog_")


class Session:
    """A running trace. `read()` as often as the rings need it; `close()` detaches."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded = loaded
        self._events = EventRing(loaded.maps["events"], options.event_ring)
        self._chunks = ChunkRing(loaded.maps["chunks"], options.chunk_ring)
        self._known_stacks: set[int] = set()
        self._symbols: symbols.Table | None = None
        self._modules: frozenset[str] = frozenset()
        self._pages = _Pages(loaded)
        self.ways = loaded.ways
        self.dropped_iommu = 0

    @property
    def fill(self) -> float:
        """How full the fuller ring is, 0 to 1: drain sooner as it grows."""
        return max(ring.window()[1] / ring.size for ring in (self._events, self._chunks))

    def read(self) -> Batch:
        """What happened since the last call.

        Events are taken first: the chunks of a map are sent before its event, so those of every
        event taken are in the ring by then.
        """
        events = self._events.read()
        tables, raw = self._chunks.read()
        return Batch(
            events, tables, self._pages.normalize(raw), self._new_stacks(events), self._losses()
        )

    def close(self) -> None:
        """Detach the probes and unmap the rings."""
        self._events.close()
        self._chunks.close()
        self._loaded.close()

    def _losses(self) -> Losses:
        events, segments, untracked, calls, dropped = maps.counters(
            self._loaded.maps["stats"], _COUNTERS
        )
        self.dropped_iommu = dropped
        # A skipped run of a program is a call that was not seen.
        calls += sum(bpf.program_misses(fd) for fd in self._loaded.programs.values())
        return Losses(events, segments, untracked, calls)

    def _new_stacks(self, events: Events) -> dict[int, tuple[str, ...]]:
        keys = np.unique(events["stack"]).tolist() if len(events) else []
        new = [key for key in keys if key >= 0 and key not in self._known_stacks]
        self._known_stacks.update(new)
        return {key: self._name(maps.stack(self._loaded.maps["stacks"], key)) for key in new}

    def _name(self, addresses: list[int]) -> tuple[str, ...]:
        """Frames by name, BPF's own left out; an address in no known function is `?`."""
        frames = self._locate(addresses)
        return tuple(frame for frame in frames if not frame.startswith(_OWN_FRAMES))

    def _locate(self, addresses: list[int]) -> list[str]:
        loaded = frozenset(os.listdir("/sys/module"))
        if self._symbols is None or loaded != self._modules:
            self._symbols, self._modules = symbols.Table.read(), loaded
        return [str(place) if place else "?" for place in self._symbols.locate(addresses)]


class _Pages:
    """Turns the page pointers of scatterlist entries into physical addresses."""

    def __init__(self, loaded: Loaded) -> None:
        self._flags_known = loaded.has_dma_flags

    def normalize(self, raw: NDArray[np.uint64]) -> NDArray[Any]:
        """struct scatterlist as SEGMENT, shape (m,), without pointers."""
        segments = np.ascontiguousarray(raw).view(SEGMENT).reshape(len(raw))
        pointers = segments["page"] & ~np.uint64(3)
        segments["page"] = np.where(pointers == 0, PAGE_NONE, PAGE_UNKNOWN)
        if not self._flags_known:
            segments["dma_flags"] = 0  # padding up to 6.2 without P2PDMA
        return segments
