# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables an importer took back unused, because they are not what it can use.

An importer that checks a table does so after dma_buf_map_attachment() gave it: the map is good,
and the refusal is that the same thread ends the mapping with nothing done to it
(vb2_dc_map_dmabuf(); drm_gem_prime_import_dev() after gem_prime_import_sg_table() failed).
No event says "refused". What proves it is who unmaps: the first unmap of an attachment comes with
its call stack, and a framework that refuses does so in one function (`Framework.refuses_in`).

Where that is not known (a driver that no framework names, a stack that could not be taken) it is
inferred: the table does not fit the device, the thread that mapped it ended it, nobody touched
the buffer by CPU meanwhile, no context got a range of it, and no other table of the attachment was
ever kept. Time is a bound only: a busy machine may do much else between a map and an unmap that
follow each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from dmabuf_tool.model.mappings import MAPPING, End

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.registry import Registry
    from dmabuf_tool.model.store import Rows

UNDONE_NS: Final = 2_000_000_000
"""A table that was kept for longer was used, if its end's caller is not known."""
MAX_TABLES: Final = 64
"""Tables remembered of one attachment, one for each try."""


def misfits(rows: Rows, registry: Registry) -> NDArray[np.bool_]:
    """Which MAPPING rows have more runs than the device takes segments.

    Importers of one run compare the run that the first entry begins with the size
    (vb2_dc_get_contiguous_size(), drm_prime_get_contiguous_size()).
    """
    most = registry.sites.effective["max_segment_count"][rows["site"]]
    one_run = (most == 1) & rows["complete"] & (rows["first_run"] < rows["size"])
    found: NDArray[np.bool_] = one_run | ((most > 1) & (rows["runs"] > most))
    return found


class Undone:
    """By attachment, until it is detached."""

    def __init__(self) -> None:
        self._tables: dict[int, list[np.void]] = {}
        self._count: dict[int, int] = {}
        self.in_contexts: set[int] = set()
        """Attachments of which a context has or had a range."""

    def take(self, ended: Rows, registry: Registry) -> None:
        """Look at the mappings that ended in a batch, "synced" known."""
        if not len(ended) or not bool((registry.sites.effective["max_segment_count"] > 0).any()):
            return
        found = misfits(ended, registry)
        found &= np.isin(ended["end"], (End.UNMAP, End.DETACH_CACHED))
        for place in np.flatnonzero(found).tolist():
            row = ended[place].copy()
            number = int(row["attachment"])
            if number in registry.attachments and _was_refused(row, registry):
                tables = self._tables.setdefault(number, [])
                self._count[number] = self._count.get(number, 0) + 1
                if len(tables) < MAX_TABLES:
                    tables.append(row)

    def refused(self, registry: Registry, attachments: Iterable[int] | None = None) -> Rows:
        """MAPPING rows of all tables of attachments that never kept one.

        Args:
            registry: has their counters, of the end of the last batch.
            attachments: ids; all that live if not given.
        """
        counts = registry.attachment_counts
        rows: list[np.void] = []
        for number in self._tables if attachments is None else attachments:
            if number not in self._tables or number in self.in_contexts:
                continue
            position = counts.position(number)
            if position < 0 or bool(counts.rows["preexisting"][position]):
                continue
            if int(counts.rows["tables"][position]) == self._count[number]:
                rows += self._tables[number]
        out: Rows = np.array(rows, MAPPING)
        return out

    def drop(self, attachments: Iterable[int]) -> None:
        """Forget detached attachments."""
        for number in attachments:
            self._tables.pop(number, None)
            self._count.pop(number, None)
            self.in_contexts.discard(number)


def _was_refused(row: np.void, registry: Registry) -> bool:
    """Whether a MAPPING row's table was; "end_stack" becomes -1 where that is inferred."""
    caller = registry.caller(int(row["end_stack"]))
    refuses_in = registry.sites[int(row["site"])].framework.refuses_in
    if caller is not None and refuses_in:
        return caller.source_function == refuses_in
    row["end_stack"] = -1
    kept = int(row["end_ns"]) - int(row["ts_ns"])
    same_thread = row["end_tid"] == row["tid"]
    return bool(same_thread and not row["synced"] and 0 <= kept <= UNDONE_NS)
