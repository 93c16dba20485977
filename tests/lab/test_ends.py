# SPDX-License-Identifier: GPL-2.0-or-later
"""However a trace ends, nothing stays in the kernel and the capture can be read."""

from __future__ import annotations

import json

import pytest
from matrix import RUNS

from dmabuf_tool.capture.reader import open_capture


def played(run):
    """On the kernels that play a run."""
    return pytest.mark.parametrize("guest", RUNS[run], indirect=True)


def one_line(result, status, *words):
    """Check an error: one line on stderr, the status, no traceback."""
    assert result["status"] == status, result
    (line,) = result["stderr"].splitlines()
    assert line.startswith("dmabuf-tool: "), line
    for word in words:
        assert word in line


def read(path):
    """Events, reason of the end, notes."""
    with open_capture(path) as reader:
        count = sum(len(batch.events) for batch in reader.batches())
        return count, reader.reason, reader.notes


@played("interrupted")
def test_ctrl_c_while_loading(guest):
    result = guest["interrupted"]
    one_line(result["loading"], 1, "stopped before tracing began")
    assert not result["loading_capture"]


@played("interrupted")
def test_ctrl_c_while_tracing(guest):
    result = guest["interrupted"]["ready"]
    assert result["status"] == 0, result
    assert "Traceback" not in result["stderr"]
    assert "events in" in result["stderr"]
    assert read(guest.capture("ready"))[1:] == ("interrupted", [])


def test_kill_leaves_nothing_in_the_kernel(guest):
    result = guest["providers"]["killed"]
    assert result["status"] == -9
    # The scenario waited until the programs were those from before.
    assert len(result["during"]) > len(result["before"]) + 10
    assert result["kprobe_events"] == []


def test_kill_leaves_a_readable_capture(guest):
    assert guest["providers"]["killed"]["status"] == -9
    count, reason, notes = read(guest.capture("providers"))
    assert count > 50
    assert reason == ""
    assert len(notes) == 1  # that it was not closed


@played("full_disk")
def test_a_full_disk_ends_the_recording_and_not_the_trace(guest):
    result = guest["full_disk"]
    assert result["status"] == 0, result["stderr"]
    told = [line for line in result["stderr"].splitlines() if line.startswith("dmabuf-tool: ")]
    assert len(told) == 1 and "No space left on device" in told[0]
    assert "Traceback" not in result["stderr"]
    count, reason, _ = read(guest.capture("full"))
    assert reason in ("disk full", "")  # there may be no room even for the reason
    seen = next(line for line in result["stderr"].splitlines() if " events in " in line)
    assert int(seen.split()[0]) > count > 0
    assert json.loads(result["stdout"].splitlines()[-1])["type"] in ("event", "finding")


@played("refused")
def test_refusals_are_one_line(guest):
    result = guest["refused"]
    one_line(result["exists"], 1, "/tmp/there.dmabuf", "-f")
    assert result["kept"] == "mine"
    one_line(result["no_pid"], 1, result["nobody"])
    one_line(result["no_device"], 1, "nosuch", "dmabuf-tool devices")
    one_line(result["as_nobody"], 1, "root")
    one_line(result["no_directory"], 1, "/nowhere/x.dmabuf")
    one_line(result["no_command"], 1, "/nowhere/command")


@played("refused")
def test_a_trace_ends_with_its_time(guest):
    result = guest["refused"]["duration"]
    assert result["status"] == 0, result
    assert read(guest.capture("duration"))[1:] == ("done", [])


def test_no_scenario_ended_in_a_traceback(guest):
    assert guest.status == 0, guest.output
    for path in guest.share.glob("*.json"):
        assert "Traceback (most recent" not in path.read_text(), path.name
