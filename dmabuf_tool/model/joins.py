# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins of one kind of event with another along the stream, over whole batches."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.mappings import Detaches
from dmabuf_tool.model.store import Rows, add_sums
from dmabuf_tool.schema import Events

MAX_WAITING: Final = 4096
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


def bounced(bounces: Events) -> NDArray[np.uint32]:
    """How many bounces each BOUNCE event stands for: those of one map are sent together."""
    counts: NDArray[np.uint32] = np.maximum(bounces["calls"], 1).astype(np.uint32)
    return counts


def join_bounces(
    calls: Rows,
    bounces: Events,
    seq: NDArray[np.uint64],
    detaches: Detaches,
    waiting: dict[int, tuple[int, int]],
) -> None:
    """Give each map call the bounces made inside it.

    Maps of one attachment are serialised by the buffer's reservation lock, and a bounce comes
    before the MAP event, which is sent at return: it belongs to the attachment's next MAP.

    Args:
        calls: MAPPING rows of all MAP events; "bounces" and "bounced_bytes" are written.
        bounces, seq: BOUNCE events under the "iommu" names, and their sequence numbers.
        detaches: attachments that ended; what waits for them is dropped.
        waiting: attachment -> count and bytes of bounces whose MAP comes in a later batch.
    """
    inside = np.zeros(len(bounces), np.bool_)
    at, many = bounces["attachment"], bounced(bounces)
    if len(bounces) and len(calls):
        base = min(seq.min(), calls["seq"].min())
        order = np.lexsort((calls["seq"], calls["attachment"]))
        keys = _keys(calls["attachment"][order], calls["seq"][order] - base)
        place = np.searchsorted(keys, _keys(at, seq - base))
        target = order[np.minimum(place, len(order) - 1)]
        inside = (place < len(order)) & (calls["attachment"][target] == at)
        np.add.at(calls["bounces"], target[inside], many[inside])
        add_sums(calls["bounced_bytes"], target[inside], bounces["size"][inside])
    if waiting:
        _, first = np.unique(calls["attachment"], return_index=True)
        for index in first.tolist():
            count, size = waiting.pop(int(calls["attachment"][index]), (0, 0))
            calls["bounces"][index] += count
            calls["bounced_bytes"][index] += size
    left = np.flatnonzero(~inside & (at != 0))
    for index in left.tolist():
        number, size = int(at[index]), int(bounces["size"][index])
        count, total = waiting.get(number, (0, 0))
        if count or len(waiting) < MAX_WAITING:
            waiting[number] = ((count + int(many[index])) & 0xFFFF_FFFF, (total + size) & _U64)
    if waiting:
        for number in detaches.ids.tolist():
            waiting.pop(number, None)


def join_iommu(calls: Rows, iommu: Events, waiting: dict[int, int]) -> None:
    """Give each map call the bytes entered into the IOMMU inside it, by the mapping's id.

    Args:
        calls: MAPPING rows of all MAP events; "iommu_bytes" is written.
        iommu: IOMMU_MAP events under the "iommu" names, all of them.
        waiting: mapping -> bytes whose MAP comes in a later batch.
    """
    inside = iommu.compress((iommu["mapping"] != 0) & (iommu["result"] == 0))
    if len(inside):
        ids, place = np.unique(inside["mapping"], return_inverse=True)
        sums = np.zeros(len(ids), np.uint64)
        add_sums(sums, place, inside["size"])
        known = np.isin(ids, calls["id"])
        where = np.minimum(np.searchsorted(ids, calls["id"]), len(ids) - 1)
        calls["iommu_bytes"] = np.where(ids[where] == calls["id"], sums[where], 0)
        for number, size in zip(ids[~known].tolist(), sums[~known].tolist(), strict=True):
            if number in waiting or len(waiting) < MAX_WAITING:
                waiting[number] = (waiting.get(number, 0) + size) & _U64
    if waiting and len(calls):
        ids, first = np.unique(calls["id"], return_index=True)
        for number in waiting.keys() & set(ids.tolist()):
            calls["iommu_bytes"][first[np.searchsorted(ids, number)]] += np.uint64(
                waiting.pop(number)
            )


def _keys(number: NDArray[np.uint32], place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sort keys by number, then by place in the stream (a batch is shorter than 2**32)."""
    return (number.astype(np.uint64) << np.uint64(32)) | place


def last_before(
    numbers: NDArray[np.uint32],
    seq: NDArray[np.uint64],
    wanted: NDArray[np.uint32],
    upto: NDArray[np.uint64],
    otherwise: NDArray[np.uint64],
    values: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """What the last event of each wanted object up to a place in the stream says.

    Args:
        numbers, seq: the objects and sequence numbers of a batch's events, shape (n,).
        wanted, upto: object and place asked for, the place included, shape (m,).
        otherwise: the answer where the batch has no such event, shape (m,).
        values: what each event says, shape (n,); its sequence number if not given.
    """
    if not len(numbers) or not len(wanted):
        return otherwise
    order = np.lexsort((seq, numbers))
    values = seq[order] if values is None else values[order]
    numbers, seq = numbers[order], seq[order]
    base = seq.min()
    span = np.uint64(max(int(seq.max() - base), int(upto.max()) - int(base), 0) + 2)
    keys = numbers.astype(np.uint64) * span + (seq - base)
    reach = np.where(upto > base, upto - base, np.uint64(0))
    place = np.searchsorted(keys, wanted.astype(np.uint64) * span + reach, side="right") - 1
    found = place >= 0
    place = np.maximum(place, 0)
    found &= (numbers[place] == wanted) & (seq[place] <= upto)
    return np.where(found, values[place], otherwise)
