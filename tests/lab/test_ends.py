# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 leaves nothing in the kernel, and a capture that can be read."""

from __future__ import annotations

from dmabuf_tool.capture.reader import open_capture


def test_kill_leaves_nothing_in_the_kernel(guest):
    result = guest["providers"]["killed"]
    assert result["status"] == -9
    # The scenario waited until the programs were those from before.
    assert len(result["during"]) > len(result["before"]) + 10
    assert result["kprobe_events"] == []


def test_kill_leaves_a_readable_capture(guest):
    assert guest["providers"]["killed"]["status"] == -9
    with open_capture(guest.capture("providers")) as reader:
        assert sum(len(batch.events) for batch in reader.batches()) > 50
        assert reader.reason == ""
        assert len(reader.notes) == 1  # that it was not closed


def test_no_scenario_ended_in_a_traceback(guest):
    assert guest.status == 0, guest.output
    for path in guest.share.glob("*.json"):
        assert "Traceback (most recent" not in path.read_text(), path.name
