# SPDX-License-Identifier: GPL-2.0-or-later
"""The scatterlists of maps whose event has not come yet: chunks come before it or with it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.schema import Batch

MAX_WAITING: Final = 8192
"""Mappings kept at most: an event that was lost must not keep its chunks forever."""


class Scatterlists:
    """Chunks by mapping, until they are forgotten."""

    def __init__(self) -> None:
        self._chunks: dict[int, list[tuple[int, NDArray[Any]]]] = {}

    def add(self, batch: Batch) -> None:
        """Take the chunks of a batch; its arrays are kept alive as long as they wait."""
        for mapping, first, count, _, offset in batch.tables.tolist():
            part = batch.segments[["dma_address", "dma_length"]][offset : offset + count]
            self._chunks.setdefault(mapping, []).append((first, part))
        while len(self._chunks) > MAX_WAITING:
            del self._chunks[next(iter(self._chunks))]

    def entries(self, mapping: int, nents: int) -> list[list[int]] | None:
        """DMA address and length of a mapping's first `nents` entries, up to a missing chunk.

        None if no chunk of it is here.
        """
        chunks = sorted(self._chunks.get(mapping, ()), key=lambda chunk: chunk[0])
        if not chunks:
            return None
        parts, next_first = [], 0
        for first, part in chunks:
            if first != next_first:
                break
            parts.append(part)
            next_first += len(part)
        if not parts:
            return []
        return [list(entry) for entry in np.concatenate(parts)[:nents].tolist()]

    def forget(self, mapping: int) -> None:
        """The mapping's event was handled."""
        self._chunks.pop(mapping, None)
