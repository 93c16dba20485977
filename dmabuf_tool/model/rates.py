# SPDX-License-Identifier: GPL-2.0-or-later
"""The highest rate of something, counted in whole seconds of the trace's clock.

Seconds never go back along the stream (events of two CPUs may be out of order by nanoseconds),
so the peak does not depend on where the stream was cut.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.store import Index, Rows

SECOND: Final = 1_000_000_000


def seconds_of(ts_ns: NDArray[np.uint64], last: int) -> NDArray[np.uint64]:
    """The second of each event of a batch, at least `last`, shape (n,)."""
    seconds = ts_ns // np.uint64(SECOND)
    if len(seconds):
        seconds[0] = max(int(seconds[0]), last)
    out: NDArray[np.uint64] = np.maximum.accumulate(seconds)
    return out


def count_peaks(
    rows: Rows,
    position: Index,
    seconds: NDArray[np.uint64],
    amount: NDArray[np.uint64] | None = None,
) -> None:
    """Add events to the PEAK fields of rows.

    Args:
        rows: rows with the fields of objects.PEAK.
        position: the row of each event, in the order of the stream, shape (n,).
        seconds: the second of each, never falling, shape (n,).
        amount: how much each counts; 1 if not given.
    """
    if not len(position):
        return
    order = np.lexsort((seconds, position))
    place, second = position[order], seconds[order]
    begins = np.flatnonzero(
        np.concatenate([[True], (place[1:] != place[:-1]) | (second[1:] != second[:-1])])
    )
    if amount is None:
        sums = np.diff(np.append(begins, len(place))).astype(np.uint64)
    else:
        sums = np.add.reduceat(amount[order].astype(np.uint64), begins)
    place, second = place[begins], second[begins]
    # Only the first second of a row can go on from the batch before.
    carried = rows["second"][place] == second
    sums = sums + np.where(carried, rows["rate"][place], np.uint64(0))
    last = np.append(place[1:] != place[:-1], True)
    rows["second"][place[last]] = second[last]
    rows["rate"][place[last]] = sums[last]
    # Of a row's seconds the first with the highest sum.
    ranked = np.lexsort((second, -sums.astype(np.int64), place))
    place, second, sums = place[ranked], second[ranked], sums[ranked]
    best = np.concatenate([[True], place[1:] != place[:-1]])
    place, second, sums = place[best], second[best], sums[best]
    higher = sums > rows["peak"][place]
    rows["peak"][place[higher]] = sums[higher]
    rows["peak_ns"][place[higher]] = second[higher] * np.uint64(SECOND)
