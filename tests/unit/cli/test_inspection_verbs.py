# SPDX-License-Identifier: GPL-2.0-or-later
"""list, devices and doctor as a user runs them, on small fake trees."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dmabuf_tool.cli import devices as devices_verb
from dmabuf_tool.cli import doctor as doctor_verb
from dmabuf_tool.cli import list as list_verb
from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import bufinfo, checks, devices, fdinfo, inventory, iommu
from dmabuf_tool.kernel.checks import DEGRADED, MISSING, OK, Check
from dmabuf_tool.probes import checks as probe_checks
from dmabuf_tool.probes import iterator
from dmabuf_tool.render import list as list_page

BUFFERS = (
    bufinfo.Buffer(2, 8 << 20, "system", "camera\x1b[2J", 5, 2, 7, ("vgem", "vgem", "gpu0")),
    bufinfo.Buffer(9, 4096, "udmabuf", None, 1, 2, 7, ()),
)
SCAN = fdinfo.Scan(
    processes=[
        fdinfo.Process(
            312,
            "weston",
            {2: fdinfo.Holding([4, 9, 10, 11, 12, 13], 2, 8192)},
            [fdinfo.DrmClient(7, "xe", 11, "0000:03:00.0", None)],
        ),
        fdinfo.Process(400, "[red]", {2: fdinfo.Holding([3])}),
    ],
    buffers={2: fdinfo.Descriptor(2, 8 << 20, 11, "system", "camera\x1b[2J")},
    scanned=2,
)


@pytest.fixture
def sources(monkeypatch):
    """What the two sources say; tests change it."""
    found = {
        "bufinfo": bufinfo.Bufinfo("ok", "", BUFFERS),
        "iterator": bufinfo.Bufinfo("absent", "this kernel has no dmabuf iterator"),
        "scan": SCAN,
    }
    monkeypatch.setattr(iterator, "read", lambda: found["iterator"])
    monkeypatch.setattr(bufinfo, "read", lambda *_, **__: found["bufinfo"])

    def scan(*_, **__):
        if isinstance(found["scan"], OSError):
            raise found["scan"]
        return found["scan"]

    monkeypatch.setattr(fdinfo, "scan", scan)
    return found


def run(command, *arguments):
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_list(sources):
    result = run(list_verb.command)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].split() == ["INO", "SIZE", "REFS", "EXPORTER", "NAME", "DEVICES", "HELD", "BY"]
    assert "weston[312] fd=4,9,10,11,+2 maps=2" in lines[1]
    assert "camera\\x1b[2J" in lines[1]
    assert lines[-1] == "2 buffers, 8.0 MiB; 3 attachments to 2 devices; held by 2 processes."


def test_list_by_process_device_and_exporter(sources):
    rows = run(list_verb.command, "--by", "process").output.splitlines()
    assert " ".join(rows[1].split()) == "312 weston 1 8.0 MiB 6 8.0 KiB xe 0000:03:00.0 #11"
    rows = run(list_verb.command, "--by", "device").output.splitlines()
    assert [row.split()[:3] for row in rows[1:3]] == [["vgem", "1", "2"], ["gpu0", "1", "1"]]
    rows = run(list_verb.command, "--by", "exporter").output.splitlines()
    assert [row.split()[0] for row in rows[1:3]] == ["system", "udmabuf"]


def test_list_filters(sources):
    assert "1 buffer," in run(list_verb.command, "-x", "udmabuf").output
    assert "1 buffer," in run(list_verb.command, "-p", "400").output
    assert "0 buffers," in run(list_verb.command, "-p", "1", "-x", "udmabuf").output
    assert "1 buffer," in run(list_verb.command, "-D", "gpu*").output
    assert "1 buffer," in run(list_verb.command, "-c", "west*").output


@pytest.mark.parametrize("flags", [["--json"], ["--format", "json"]])
def test_list_json(sources, flags):
    result = run(list_verb.command, *flags)
    assert "\x1b" not in result.output
    document = json.loads(result.output)
    assert document["schema"] == "dmabuf-tool/list/1"
    first, second = document["buffers"]
    assert first["name"] == "camera\x1b[2J"
    assert first["devices"] == ["vgem", "vgem", "gpu0"]
    assert first["other_refs"] == 11 - 7 - 2
    assert first["processes"][1] == {
        **{"pid": 400, "comm": "[red]", "fds": [3], "maps": 0, "mapped": 0}
    }
    assert (second["processes"], second["other_refs"]) == ([], 1)
    assert document["drm_clients"][0]["client"] == 11
    assert document["totals"] == {
        **{"buffers": 2, "bytes": (8 << 20) + 4096, "attachments": 3, "processes": 2}
    }


def test_list_without_root_says_what_is_missing(sources):
    sources["bufinfo"] = bufinfo.Bufinfo("denied", "only root reads debugfs")
    sources["scan"] = fdinfo.Scan(SCAN.processes, SCAN.buffers, scanned=2, denied=80)
    result = run(list_verb.command)
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split()[6] == "?"
    assert "Attachments are unknown: only root reads debugfs." in result.output
    assert "Holders may be missing: 80 of 82 processes may not be read." in result.output
    document = json.loads(run(list_verb.command, "--json").output)
    assert document["buffers"][0]["devices"] is None
    assert document["buffers"][0]["other_refs"] is None
    assert document["totals"]["attachments"] is None


def test_list_when_a_lock_is_stuck(sources):
    sources["bufinfo"] = bufinfo.Bufinfo("timeout", "no answer within 2 s")
    result = run(list_verb.command)
    assert result.exit_code == 0
    assert "no answer within 2 s" in result.output
    assert "weston[312]" in result.output


def test_list_asks_the_iterator_then(sources):
    sources["bufinfo"] = bufinfo.Bufinfo("timeout", "no answer within 2 s")
    sources["iterator"] = bufinfo.Bufinfo("ok", "by the BPF iterator", BUFFERS)
    result = run(list_verb.command)
    assert "vgem x2" in result.output
    assert "Read by the BPF iterator: no answer within 2 s." in result.output
    document = json.loads(run(list_verb.command, "--json").output)
    assert document["sources"]["iterator"]["status"] == "ok"
    assert document["totals"]["attachments"] == 3


def test_list_fails_only_when_nothing_can_be_read(sources):
    sources["bufinfo"] = bufinfo.Bufinfo("absent", "debugfs is not mounted")
    sources["scan"] = FileNotFoundError(2, "No such file or directory")
    with pytest.raises(ToolError, match=r"nothing can be read .*debugfs is not mounted"):
        run(list_verb.command)


def test_list_with_no_buffers_says_so(sources):
    sources["bufinfo"] = bufinfo.Bufinfo("ok", "")
    sources["scan"] = fdinfo.Scan(scanned=3)
    assert run(list_verb.command).output.startswith("None.\n")
    sources["bufinfo"] = bufinfo.Bufinfo("denied", "only root")
    assert run(list_verb.command).output.startswith("None that can be seen.\n")


def test_every_column_is_documented():
    for columns in list_page.COLUMNS.values():
        assert all(column.description for column in columns)
        assert len({column.key for column in columns}) == len(columns)


DEVICE = devices.Device(
    *("0000:03:00.0", "pci", "xe", ("card0", "renderD128")),
    *(2**39 - 1, 2**32 - 1, True, "dmar0", 6, "DMA-FQ", True),
)


@pytest.fixture
def machine(monkeypatch, sources):
    odd = devices.Device("odd", None, None, (), None, None, None, None, None, None, False)
    monkeypatch.setattr(
        devices, "devices", lambda *_, every=False: (DEVICE, odd) if every else (DEVICE,)
    )
    group = iommu.Group(6, "DMA-FQ", ("0000:03:00.0",), (iommu.Region(0, 4095, "direct"),))
    monkeypatch.setattr(iommu, "groups", lambda *_: {6: group})
    monkeypatch.setattr(iommu, "units", lambda *_: ("dmar0",))


def test_devices(machine):
    lines = run(devices_verb.command).output.splitlines()
    cells = " ".join(lines[1].split())
    assert cells == "0000:03:00.0 xe pci 39 yes 6 DMA-FQ 0 card0 renderD128"
    assert "odd" not in run(devices_verb.command).output
    odd = run(devices_verb.command, "--all").output.splitlines()[2]
    assert odd.split() == ["odd", "-", "-", "?", "?", "-", "-", "0", "-"]
    assert "odd" in run(devices_verb.command, "-D", "odd").output


def test_devices_json(machine):
    document = json.loads(run(devices_verb.command, "--json").output)
    assert document["schema"] == "dmabuf-tool/devices/1"
    (device,) = document["devices"]
    assert device["dma_mask"] == 2**39 - 1
    unknown = {key for key, value in device.items() if value is None}
    assert unknown == {
        *("bus_dma_limit", "max_segment_size", "max_segment_size_declared", "min_align_mask"),
        *("segment_boundary_mask", "domain"),
    }
    assert all(document["unknown"][key] for key in unknown)
    assert document["iommu_groups"][0]["reserved_regions"] == [
        {"start": 0, "end": 4095, "type": "direct"}
    ]


def _checks(monkeypatch, *found):
    monkeypatch.setattr(checks, "run", lambda: list(found))
    monkeypatch.setattr(probe_checks, "run", lambda: [])


def test_doctor_when_tracing_is_possible(monkeypatch):
    _checks(
        monkeypatch,
        Check("bcc", "bcc", OK, "version 0.31.0", needed="bcc"),
        Check("tracefs", "tracefs", DEGRADED, "not mounted", "mount -t tracefs none /sys"),
    )
    result = run(doctor_verb.command)
    assert result.exit_code == 0
    assert "-> mount -t tracefs none /sys" in result.output
    assert result.output.endswith("Tracing is possible.\n")
    assert all(len(line) < 100 for line in result.output.splitlines())


def test_doctor_when_it_is_not(monkeypatch):
    _checks(monkeypatch, Check("bcc", "bcc", MISSING, "not installed", "apt install x", "bcc"))
    result = run(doctor_verb.command)
    assert result.exit_code == 1
    assert "Tracing is not possible:" in result.output
    document = json.loads(run(doctor_verb.command, "--json").output)
    assert document["schema"] == "dmabuf-tool/doctor/1"
    assert not document["can_trace"]
    assert document["reasons"] == [checks.REQUIREMENTS["bcc"]]
    assert document["checks"][0] == {
        **{"id": "bcc", "what": "bcc", "status": "missing", "detail": "not installed"},
        **{"fix": "apt install x", "needed": "bcc"},
    }


TOOL = [sys.executable, "-m", "dmabuf_tool"]
TOP = Path(__file__).parents[3]


def _environment(**more):
    return {**os.environ, "PYTHONPATH": str(TOP), **more}


def test_help_imports_nothing_large():
    code = (
        "import sys; from dmabuf_tool.cli.main import cli\n"
        "for verb in ('list', 'devices', 'doctor'):\n"
        "    try: cli([verb, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "large = {'numpy', 'bcc', 'rich', 'pyroute2'} & set(sys.modules)\n"
        "assert not large, large\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=_environment(), stdout=subprocess.PIPE, check=True
    )


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_told_not_to(more, coloured):
    master, slave = pty.openpty()
    environment = _environment(TERM="xterm", **more)
    if not more:
        environment.pop("NO_COLOR", None)
    with subprocess.Popen([*TOOL, "devices", "--all"], stdout=slave, env=environment) as tool:
        os.close(slave)
        output = b""
        try:
            while part := os.read(master, 65536):
                output += part
        except OSError:  # the other end is closed
            pass
    os.close(master)
    assert tool.returncode == 0
    assert (b"\x1b[" in output) == coloured


def test_a_pipe_gets_plain_text():
    done = subprocess.run(
        [*TOOL, "list"], env=_environment(TERM="xterm"), stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout


def test_inventory_of_this_machine_is_readable():
    assert inventory.take().readable
