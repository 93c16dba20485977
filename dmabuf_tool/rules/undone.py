# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps an importer took back at once, because the table was not what it can use.

An importer that checks a table does so after dma_buf_map_attachment() gave it: the map is good,
and the refusal is that the same thread ends the mapping at once (vb2_dc_map_dmabuf(),
drm_gem_prime_import_dev() after gem_prime_import_sg_table() failed). The check itself walks the
table once and may print a line: microseconds, but a busy machine may do something else meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dmabuf_tool.model.mappings import End

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.step import Step

UNDONE_NS: Final = 500_000_000
"""Long, for busy machines. `not-contiguous` and `map-refused` look only at tables that the
importer's framework cannot accept; `too-many-segments` with a configured count takes an unmap this
soon for a refusal, which raises its severity."""


def undone(step: Step) -> NDArray[np.bool_]:
    """Which of `step.ended` their own thread ended at once."""
    ended = step.ended
    soon = ended["end_ns"] - ended["ts_ns"] <= UNDONE_NS
    same = (ended["end_tid"] == ended["tid"]) & (ended["end"] != End.RELEASE)
    found: NDArray[np.bool_] = same & soon & (ended["end_ns"] >= ended["ts_ns"])
    return found


def short_runs(step: Step, part: str) -> NDArray[np.bool_]:
    """Which rows of a part of the step are for an importer of one run and begin with less.

    The importers compare the run that the first entry begins with the size
    (vb2_dc_get_contiguous_size(), drm_prime_get_contiguous_size()).
    """
    rows = getattr(step, part)
    counts = step.model.registry.sites.effective["max_segment_count"]
    if not bool((counts == 1).any()):
        return np.zeros(len(rows), np.bool_)
    one_run = (counts[rows["site"]] == 1) & rows["complete"]
    short: NDArray[np.bool_] = one_run & (rows["first_run"] < rows["size"])
    return short
