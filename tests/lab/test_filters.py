# SPDX-License-Identifier: GPL-2.0-or-later
"""Each filter keeps what it must, all of it, and nothing else; two traces run at once."""

from __future__ import annotations

from collections import Counter

import pytest
from compare import counts, from_capture, from_log
from matrix import RUNS

from dmabuf_tool.capture.reader import open_capture

# What map_loop does, the process that was chosen; its pairs have no lines in the log.
LOOP = Counter(attach=1, map=5, unmap=5, detach=1)


pytestmark = pytest.mark.parametrize("guest", RUNS["filters"], indirect=True)


@pytest.fixture
def logged(guest):
    """The driver's log of random_ops, which ran before the chosen process."""
    assert guest["filters"]["workloads"] == [0, 0]
    return from_log(guest.share / "filters.log")


def kept(guest, name):
    """What a trace recorded."""
    result = guest["filters"]["traces"][name]
    assert result["status"] == 0, result
    assert "nothing lost" in result["stderr"], result
    with open_capture(guest.capture(f"filter-{name}")) as reader:
        list(reader.batches())
        assert reader.reason == "interrupted"
    return from_capture(guest.capture(f"filter-{name}"))


def operations(sides, **fields):
    """Attachment operations by name, where all the fields are as given."""
    found = Counter()
    for thread in sides.by_thread.values():
        for seen in thread:
            if "device" in seen.fields and all(seen.fields[k] == v for k, v in fields.items()):
                found[seen.op] += 1
    return found


def test_pid_and_name(guest):
    seen = kept(guest, "pid")
    assert operations(seen) == operations(seen, tgid=guest["filters"]["pid"]) == LOOP


def test_device_and_exporter(guest, logged):
    seen = kept(guest, "device")
    name = "0000:00:03.0"
    threads = logged.by_thread.values()
    own = {one.fields["ino"] for thread in threads for one in thread if one.op == "export"}
    expected = Counter(LOOP)
    for ino in own:
        expected += operations(logged, device=name, ino=ino)
    assert operations(seen) == operations(seen, device=name) == expected
    assert counts(seen)["export"] == counts(logged)["export"] + 1
    # Either alone would have kept more.
    assert operations(logged, device=name) + LOOP - expected
    assert sum((operations(logged, ino=ino) for ino in own), LOOP) - expected
