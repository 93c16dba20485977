# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables importers took back unused (model/undone.py), as rules ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dmabuf_tool.model.constraints import Source
from dmabuf_tool.model.undone import misfits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmabuf_tool.model.model import Model
    from dmabuf_tool.model.step import Step
    from dmabuf_tool.model.store import Rows


def refused_in(step: Step) -> Rows:
    """MAPPING rows of the tables refused by attachments that were detached in a batch."""
    registry = step.model.registry
    return registry.undone.refused(registry, (one.id for one in step.detaches))


def refused_now(model: Model) -> Rows:
    """The same of attachments that live: they may still keep one."""
    return model.registry.undone.refused(model.registry)


def one_run(rows: Rows, model: Model) -> NDArray[np.bool_]:
    """Which MAPPING rows are for an importer of one run."""
    found: NDArray[np.bool_] = (
        model.registry.sites.effective["max_segment_count"][rows["site"]] == 1
    )
    return found


def inferred_one_run(rows: Rows, model: Model) -> NDArray[np.bool_]:
    """Which of them are so by their framework, not by a user's word."""
    source = model.registry.sites.effective["count_source"][rows["site"]]
    found: NDArray[np.bool_] = one_run(rows, model) & (source == Source.INFERRED)
    return found


def short_runs(step: Step) -> NDArray[np.bool_]:
    """Which of `step.maps` are for an importer of one run and begin with less."""
    return one_run(step.maps, step.model) & misfits(step.maps, step.model.registry)


def proof(row: np.void) -> str:
    """What shows that a row of `refused_in` or `refused_now` was refused."""
    return "the unmap's caller" if row["end_stack"] >= 0 else "unmapped at once and unused"
