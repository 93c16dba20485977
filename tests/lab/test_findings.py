# SPDX-License-Identifier: GPL-2.0-or-later
"""What stock drivers do is judged right, live and from the capture alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import objects

PROJECT = Path(__file__).parents[2]
UNHEALTHY = {
    *("not-contiguous", "map-refused", "union-unsatisfiable"),  # vivid_contig.py
    *("fault-attributed", "domain-switched-while-mapped"),  # late_faults.py
}
"""The warnings and errors."""

# Modules are imported before root is given up: nobody may not be able to read the checkout.
AS_NOBODY = """
import importlib, os, pkgutil, sys
import dmabuf_tool
for module in pkgutil.walk_packages(dmabuf_tool.__path__, "dmabuf_tool."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
dmabuf_tool.cli.main.main()
"""


def final(result):
    """The findings at the trace's end, without what makes them lines."""
    return [
        {key: value for key, value in line.items() if key not in ("type", "final")}
        for line in objects(result["stdout"])
        if line["type"] == "finding" and line["final"]
    ]


def report(capture):
    """`report` on this machine, without root."""
    # Not in tmp_path, which nobody may enter.
    with tempfile.NamedTemporaryFile(suffix=".dmabuf") as copy:
        copy.write(capture.read_bytes())
        copy.flush()
        os.fchmod(copy.fileno(), 0o644)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, "report", "--format", "json", copy.name],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_report_says_what_trace_said(guest):
    live = final(guest["findings"])
    document = report(guest.capture("findings"))
    assert all(finding.pop("capture") == 0 for finding in document["findings"])
    assert document["findings"] == live
    assert not any(document["losses"].values())


def test_nothing_is_wrong_with_a_healthy_run(guest):
    account = guest.json("healthy.account")
    assert account["unexpected"] == [] and account["refused"] == {}
    told = objects(guest["findings"]["stdout"])
    assert [line for line in told if line["type"] == "lost"] == []
    events = [line for line in told if line["type"] == "event"]
    mine = [one for one in events if one["pid"] == account["pid"] and one["event"] == "attach"]
    assert len(mine) >= account["operations"]["round"] == 3
    findings = [line for line in told if line["type"] == "finding" and line["severity"] != "info"]
    # They are of what came after it: below, and test_late_faults.py.
    assert {one["id"] for one in findings} == UNHEALTHY
    processes = {one["process"] and one["process"]["pid"] for one in findings}
    assert account["pid"] not in processes
    assert min(one["first_ns"] for one in findings) > account["end_ns"]


def one_of(findings, id):
    """The one with an id; all are shown where it is missing."""
    found = [one for one in findings if one["id"] == id]
    assert len(found) == 1, json.dumps(findings, indent=1)
    return found[0]


def test_scattered_buffers_do_not_suit_a_contiguous_importer(guest):
    account = guest.json("contiguous.account")
    assert account["unexpected"] == [] and not account["memory_above_4g"]
    assert "have no names" not in guest["findings"]["stderr"]
    sources = {what.split()[1] for what in account["refused"]}
    expected = {"6.1": {"driver"}, "arm64": {"udmabuf", "driver"}}
    assert sources == expected.get(guest.kernel, {"heap", "udmabuf", "driver"})

    exporters = {"driver": "dmabuf_lab", "heap": "system", "udmabuf": "udmabuf"}
    found = final(guest["findings"])
    for source in sources:
        mine = [f for f in found if f["buffer"] and f["buffer"]["exporter"] == exporters[source]]
        contiguity, refusal = (one_of(mine, id) for id in ("not-contiguous", "map-refused"))
        assert contiguity["severity"] == refusal["severity"] == "error"
        assert contiguity["device"]["driver"] == "vivid"
        assert contiguity["process"]["comm"] == "python3"
        assert contiguity["count"] == 2
        evidence = contiguity["evidence"]
        needed = contiguity["buffer"]["size"]
        assert evidence["size_needed"] == needed
        assert 4096 <= evidence["longest_run"] < needed
        assert refusal["evidence"]["size"] == needed
        assert refusal["evidence"]["longest_run"] == evidence["longest_run"]
        assert refusal["evidence"]["proof"] == "the unmap's caller"
    # The contiguous buffer of the other vivid was taken: nothing wrong is said of it.
    own = [f for f in found if f["buffer"] and f["buffer"]["exporter"] not in exporters.values()]
    assert [f for f in own if f["severity"] != "info"] == []


def test_the_commands_exit_status_is_passed_on(guest):
    assert guest["findings"]["status"] == 7
    assert guest["truth"]["status"] == 0
