# SPDX-License-Identifier: GPL-2.0-or-later
"""list, devices and doctor on real kernels."""

from __future__ import annotations

import json
import re

ROW = re.compile(
    r"^(\d{8,})\t[0-9a-f]{8}\t[0-9a-f]{8}\t\d{8}\t(\S+)\t(\d{8,})\t.*?\n"
    r"\tAttached Devices:\n(.*?)^Total (\d+) devices attached$",
    re.MULTILINE | re.DOTALL,
)


def test_there_are_no_kernel_headers(guest):
    assert guest["surroundings"]["headers"] == []


def test_doctor_finds_that_tracing_is_possible(guest):
    result = guest["providers"]["doctor"]
    assert result["status"] == 0, result
    document = json.loads(result["stdout"])
    assert document["schema"].startswith("dmabuf-tool/doctor/")


def test_doctor_finds_the_methods_a_kernel_has(guest):
    document = json.loads(guest["providers"]["doctor"]["stdout"])
    status = {check["id"]: check["status"] for check in document["checks"]}
    # Debian's 6.1 has no CONFIG_FPROBE; returns by fprobe came to arm64 in 6.14.
    multi = "missing" if guest.kernel in ("6.1", "arm64") else "ok"
    assert [status[name] for name in ("fentry", "kprobe-multi", "kprobes")] == ["ok", multi, "ok"]


def test_devices(guest):
    result = guest["inspection"]["devices"]
    assert result["status"] == 0, result
    devices = {device["name"]: device for device in json.loads(result["stdout"])["devices"]}
    edu = devices["0000:00:03.0"]
    assert edu["driver"] == "dmabuf_lab_edu"
    assert edu["iommu_group"] is not None
    assert edu["domain_type"] in ("DMA", "DMA-FQ")


def test_list_equals_bufinfo(guest):
    result = guest["inspection"]
    assert result["list"]["status"] == 0, result["list"]
    listed = json.loads(result["list"]["stdout"])["buffers"]
    bufinfo = [
        (int(ino), int(size), exporter, sorted(re.findall(r"^\t(\S+)$", attached, re.MULTILINE)))
        for size, exporter, ino, attached, _ in ROW.findall(result["bufinfo"])
    ]
    assert [len(devices) for *_, devices in sorted(bufinfo)] == [0, 2, 1]
    assert sorted(bufinfo) == sorted(
        (b["ino"], b["size"], b["exporter"], sorted(b["devices"])) for b in listed
    )
    for buffer in listed:
        assert [process["pid"] for process in buffer["processes"]] == [result["holder"]]
    assert result["list_text"]["status"] == 0
    assert result["list_text"]["stdout"].splitlines()[-1].startswith("3 buffers, 84.0 KiB;")


def test_no_trace_had_to_compile(guest):
    """By whatever method, and with whatever module: all texts came with the tool."""
    assert guest["compiled"]["texts"] == []
