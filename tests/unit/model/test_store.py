# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows by id, the ring, and counting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dmabuf_tool.model.store import Ring, Store, add_counts, add_sums

ROW = np.dtype([("id", "<u4"), ("value", "<u8")])


def rows(*ids: int) -> np.ndarray:
    out = np.zeros(len(ids), ROW)
    out["id"] = ids
    out["value"] = [number * 10 for number in ids]
    return out


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(1, 60), max_size=12)), max_size=30))
def test_store_is_a_dictionary(steps: list[tuple[bool, set[int]]]) -> None:
    store, model = Store(ROW), set()
    for adding, ids in steps:
        chosen = sorted(ids - model if adding else ids & model)
        if adding:
            store.add(rows(*chosen))
            model |= set(chosen)
        else:
            store.remove(store.find(np.array(chosen, np.uint32)))
            model -= set(chosen)
        everything = np.arange(0, 62, dtype=np.uint32)
        position = store.find(everything)
        assert {int(n) for n in everything[position >= 0]} == model
        assert store.live()["id"].tolist() == sorted(model)
        for number in model:
            assert store.rows["value"][store.position(number)] == number * 10
        assert store.position(61) == -1
        assert len(store) == len(model)


def test_ids_that_come_out_of_order_and_huge_ids() -> None:
    store = Store(ROW)
    store.add(rows(5, 3))
    store.add(rows(4, 0xFFFF_FFFF))
    assert store.live()["id"].tolist() == [3, 4, 5, 0xFFFF_FFFF]


def test_gaps_are_closed() -> None:
    store = Store(ROW)
    for start in range(1, 100_001, 1000):
        ids = np.arange(start, start + 1000, dtype=np.uint32)
        store.add(rows(*ids.tolist()))
        store.remove(store.find(ids))
    assert len(store) == 0
    assert len(store.rows) < 5000


@given(st.lists(st.integers(0, 30), max_size=20))
def test_ring_keeps_the_last(sizes: list[int]) -> None:
    ring, everything = Ring(ROW, 16), []
    for size in sizes:
        new = list(range(len(everything), len(everything) + size))
        everything += new
        ring.put(rows(*new))
        assert ring.rows["id"].tolist() == everything[-16:]
    assert ring.count == len(everything)


def test_sums_are_exact_and_positions_repeat() -> None:
    for size in (2, 100_000):
        target = np.zeros(size, np.uint64)
        position = np.array([1, 1, 0])
        values = np.array([(1 << 63) - 1, 1, 7], np.uint64)
        add_sums(target, position, values)
        add_counts(target, position)
        assert target[:2].tolist() == [8, (1 << 63) + 2]
