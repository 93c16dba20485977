# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON Lines: the keys of the contract, values, options, any cutting."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from render_samples import HOSTILE, START, any_batch, batch, cut, event, story, table

from dmabuf_tool.render.faults import Attribution
from dmabuf_tool.render.jsonlines import (
    EXTRA_KEYS,
    KEYS,
    NOT_TOLD,
    PAYLOAD_KEYS,
    PRIVATE_KEYS,
    SCHEMA,
    JsonRenderer,
    finding_line,
    start_line,
)
from dmabuf_tool.render.names import EVENT_NAMES
from dmabuf_tool.schema import PAYLOAD_OF, VIEWS, Batch, Flag, Kind, Losses


def objects(text: str) -> list[dict[str, Any]]:
    assert text.isascii()
    return [json.loads(line) for line in text.splitlines()]


def test_a_map() -> None:
    found = objects(JsonRenderer().render(story()))
    assert found[5] == {
        "type": "event", "event": "map", "ts_ns": START + 16_000, "duration_ns": 3_400_000,
        "result": 0, "errno": None, "pid": 312, "tid": 313, "comm": "weston",
        "buffer": 3, "ino": 41, "exporter": "system",
        "name": HOSTILE.decode("utf-8", "backslashreplace"),
        "attachment": 5, "mapping": 6, "device": "0000:00:05.0", "device_id": 2, "driver": "edu",
        "domain": 7, "flags": [], "context": None, "size": 4 << 20, "direction": "to-device",
        "address": 0xFFF00000, "nents": 2, "orig_nents": 3, "copied": 3, "dma_errno": 0,
        "dma_attrs": 0,
    }  # fmt: skip


def test_other_kinds() -> None:
    found = objects(JsonRenderer().render(story()))
    failed = found[6]
    assert (failed["errno"], failed["result"], failed["dma_errno"]) == ("ENOMEM", -12, -5)
    assert found[3]["flags"] == ["dynamic"]
    device = found[2]
    assert device["dma_mask"] == 0xFFFFFFFF
    assert device["bus_dma_limit"] is None
    assert device["iommu_group"] == 4
    assert device["attachment"] is None
    switched = next(one for one in found if one["event"] == "domain-attach")
    assert (switched["domain_type"], switched["old_domain"]) == ("unmanaged", 7)
    detached = next(one for one in found if one["event"] == "detach")
    assert detached["domain"] == 8, "a device is in the domain it was last attached to"
    refused = found[-1]
    assert (refused["buffer"], refused["exporter"], refused["errno"]) == (None, "udmabuf", "EINVAL")


def test_every_event_has_the_keys_of_the_contract() -> None:
    for kind, name in EVENT_NAMES.items():
        # iommu-map and iommu-unmap are inside dma-buf calls; elsewhere they have other names.
        (found,) = objects(JsonRenderer().render(batch(event(kind, flags=Flag.INSIDE))))
        keys = [*KEYS, *(key for key, _ in PAYLOAD_KEYS[PAYLOAD_OF[kind]])]
        if name == "cpu-access":
            keys.append("phase")
        if name == "fault":
            keys.append("attribution")
        assert list(found) == keys
        assert found["event"] == name


def test_maps_in_private_domains_are_level_2() -> None:
    where = {"domain": 8, "iova": 0x1000, "size": 8192}
    mapped = event(Kind.IOMMU_MAP, paddr=0x8000, done=4096, prot=3, **where)
    gone = event(Kind.IOMMU_UNMAP, done=8192, **where)
    vm = event(Kind.LEVEL2_MAP, context=9)
    found = objects(JsonRenderer().render(batch(mapped, gone, vm)))
    assert [one["event"] for one in found] == ["level2-map", "level2-unmap", "level2-map"]
    own = {"paddr": 0x8000, "done": 4096, "prot": 3}
    told = {"context": 8, "address": 0x1000, "size": 8192, "offset": None, "provider": 1}
    assert told | own == {key: found[0][key] for key in told | own}
    assert [found[1][key] for key in PRIVATE_KEYS] == [None, 8192, None]
    assert found[0].keys() == found[1].keys() == found[2].keys() | PRIVATE_KEYS.keys()


def test_a_fault_has_its_attribution() -> None:
    faults = [event(Kind.FAULT, 1, address=0x1000), event(Kind.FAULT, 2, address=0x2000)]
    members = {"verdict": "unmapped", "text": 'of "x\x1b"', "buffer": None}
    told = {1: Attribution("", 0, 0, True, members)}
    found = objects(JsonRenderer().render(batch(*faults), faults=told))
    assert [one["attribution"] for one in found] == [None, members]


def test_what_an_event_does_not_tell_is_null() -> None:
    (pin,) = objects(JsonRenderer().render(batch(event(Kind.PIN, size=4096))))
    assert (pin["size"], pin["direction"], pin["address"]) == (4096, None, None)
    (free,) = objects(JsonRenderer().render(batch(event(Kind.DOMAIN_FREE, domain=3))))
    assert (free["domain"], free["domain_type"], free["iommu_group"]) == (3, None, None)
    (refused,) = objects(JsonRenderer().render(batch(event(Kind.MAP, result=-12))))
    assert refused["address"] is None
    for kind, hidden in NOT_TOLD.items():
        assert set(hidden) <= {key for key, _ in PAYLOAD_KEYS[PAYLOAD_OF[kind]]}


def test_payload_keys_are_fields_of_the_schema() -> None:
    for payload, keys in PAYLOAD_KEYS.items():
        assert {field for _, field in keys} <= set(VIEWS[payload].names or ())


def test_segments_of_the_device_when_asked() -> None:
    found = objects(JsonRenderer(segments=True).render(story()))
    maps = [one for one in found if one["event"] == "map"]
    assert maps[0]["segments"] == [[0, 4096], [0x1000, 4096]]
    assert maps[1]["segments"] is None
    assert all("segments" in one for one in maps)
    assert set(found[0]) == set(found[0]) - set(EXTRA_KEYS)


def test_segments_end_at_a_lost_chunk() -> None:
    one = event(Kind.MAP, mapping=6, nents=9)
    for tables, expected in (
        ([table(6, [1, 2]), table(6, [4], first=3)], [[0, 1], [0x1000, 2]]),
        ([table(6, [4], first=3)], []),
        ([table(6, [3], first=2), table(6, [1, 2])], [[0, 1], [0x1000, 2], [0x2000, 3]]),
    ):
        (found,) = objects(JsonRenderer(segments=True).render(batch(one, tables=tables)))
        assert found["segments"] == expected


def test_chunks_whose_map_never_came_do_not_pile_up() -> None:
    renderer = JsonRenderer(segments=True)
    for start in range(0, 20_000, 1000):
        tables = [table(start + number, [1]) for number in range(1, 1001)]
        renderer.render(batch(tables=tables))
    assert renderer._scatterlists is not None
    assert len(renderer._scatterlists._chunks) <= 8192
    (found,) = objects(renderer.render(batch(event(Kind.MAP, mapping=20_000, nents=1))))
    assert found["segments"] == [[0, 1]]


def test_stacks_when_asked() -> None:
    found = objects(JsonRenderer(stacks=True).render(story()))
    attach = next(one for one in found if one["event"] == "attach")
    assert attach["stack"] == ["dma_buf_dynamic_attach+0x1f", "evil\x1b[2J+0x2 [edu]"]
    assert found[0]["stack"] is None


def test_failed() -> None:
    found = objects(JsonRenderer(failed=True).render(story()))
    assert [one["errno"] for one in found] == ["ENOMEM", "EINVAL"]
    assert found[0]["exporter"] == "system"


def test_start_finding_and_lost() -> None:
    assert json.loads(start_line({"host": "lab"})) == {
        "type": "start",
        "schema": SCHEMA,
        "host": "lab",
    }
    assert json.loads(finding_line({"id": "map-refused"}))["type"] == "finding"
    lost = objects(JsonRenderer().render(batch(losses=Losses(3, 2, 1))))
    assert lost == [{"type": "lost", "events": 3, "scatterlists": 2, "untracked": 1, "calls": 0}]


@given(any_batch(), st.lists(st.integers(0, 20), max_size=4), st.booleans())
def test_any_cutting_gives_the_same_objects(whole: Batch, at: list[int], extra: bool) -> None:
    once = JsonRenderer(stacks=extra, segments=extra).render(whole)
    renderer = JsonRenderer(stacks=extra, segments=extra)
    assert "".join(renderer.render(piece) for piece in cut(whole, at)) == once
    objects(once)
