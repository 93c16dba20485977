# SPDX-License-Identifier: GPL-2.0-or-later
"""What a selection keeps: what was asked for, all that describes, and attachments to their end."""

from __future__ import annotations

import itertools

import pytest
from batches import Trace, runs

from dmabuf_tool.probes.selection import Selection
from dmabuf_tool.schema import Kind

OPERATIONS = (Kind.ATTACH, Kind.MAP, Kind.UNMAP, Kind.DETACH)
LIVES = [  # exporter, device, pid, comm
    ("system", "gpu0", 10, "weston"),
    ("system", "isp0", 20, "camera"),
    ("udmabuf", "gpu0", 20, "camera"),
    ("udmabuf", "isp0", 30, "weston"),
]


@pytest.fixture
def trace():
    """Four buffers that are born, used and gone; the unmap is by another process."""
    trace = Trace()
    gpu, isp = trace.device("gpu0", driver="gpu"), trace.device("isp0", driver="isp")
    for exporter, device, pid, comm in LIVES:
        trace.run_as(pid, comm)
        buffer = trace.export(1 << 16, exporter=exporter)
        attachment = trace.attach(buffer, gpu if device == "gpu0" else isp)
        mapping = trace.map(attachment, runs(1 << 16))
        trace.run_as(99, "kworker")
        trace.unmap(mapping)
        trace.detach(attachment)
        trace.release(buffer)
    return trace


def lives(trace, cuts, **asked):
    """Which of LIVES were kept, each whole; the stream cut at `cuts`."""
    selection = Selection(**asked)
    kept = [selection.apply(batch) for batch in trace.batches(cuts)]
    found: dict[int, list[Kind]] = {}
    tables = 0
    for batch in kept:
        tables += len(set(batch.tables["mapping"].tolist()))
        for event in batch.events:
            if event["kind"] in OPERATIONS:
                found.setdefault(int(event["buffer"]), []).append(Kind(int(event["kind"])))
    assert all(tuple(kinds) == OPERATIONS for kinds in found.values()), found
    assert tables == len(found)
    born = [int(e["buffer"]) for b in kept for e in b.events if e["kind"] == Kind.EXPORT]
    assert len(born) == len(LIVES)  # what describes is always kept
    return [born.index(buffer) for buffer in found]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"pids": [10]}, [0]),
        ({"pids": [10, 30]}, [0, 3]),
        ({"comms": ["cam*"]}, [1, 2]),
        ({"pids": [20, 30], "comms": ["weston"]}, [3]),
        ({"devices": ["gpu0"]}, [0, 2]),
        ({"devices": ["gpu?", "isp0"]}, [0, 1, 2, 3]),
        ({"exporters": ["udma*"]}, [2, 3]),
        ({"exporters": ["udmabuf"], "devices": ["isp0"]}, [3]),
        ({"exporters": ["udmabuf"], "comms": ["camera"], "pids": [20]}, [2]),
        ({"exporters": ["nosuch"]}, []),
    ],
)
def test_all_of_what_was_asked_and_nothing_else(trace, asked, expected):
    size = len(trace)
    for cuts in ([], range(1, size), range(3, size, 4)):
        assert lives(trace, list(cuts), **asked) == expected


def test_every_single_cut(trace):
    for cut, asked in itertools.product(
        range(1, len(trace)), ({"exporters": ["udmabuf"]}, {"pids": [20]}, {"devices": ["gpu0"]})
    ):
        assert lives(trace, [cut], **asked) == lives(trace, [], **asked)


def test_faults_are_kept_whoever_is_selected():
    trace = Trace()
    trace.run_as(0, "")
    trace.event(Kind.FAULT, address=0x1000, provider=1)
    for asked in ({"pids": [10]}, {"comms": ["w*"]}, {"devices": ["gpu*"]}, {"exporters": ["x"]}):
        kept = Selection(**asked).apply(trace.batch())
        assert kept.events["kind"].tolist() == [Kind.FAULT]
