# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user can get wrong: one line on stderr, status 1 or 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from batches import Trace

from dmabuf_tool.capture.format import PREAMBLE
from dmabuf_tool.capture.header import Header
from dmabuf_tool.capture.writer import CaptureWriter
from dmabuf_tool.cli.main import VERBS

TOP = Path(__file__).parents[3]


def tool(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "dmabuf_tool", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        **more,
    )


# Somebody else may not be able to read the checkout: all of it is imported before.
AS_NOBODY = """
import importlib, os, pkgutil, sys
import dmabuf_tool
for module in pkgutil.walk_packages(dmabuf_tool.__path__, "dmabuf_tool."):
    importlib.import_module(module.name)
{before}
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
dmabuf_tool.__main__.main()
"""


def as_nobody(*arguments, before=""):
    """Without root, whoever runs the tests."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY.format(before=before), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )


def one_line(done, status=1):
    """The line an error ends with; nothing else may stand on stderr."""
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("dmabuf-tool: ")
    return line


@pytest.fixture
def capture(tmp_path):
    """A small capture with two batches."""
    path = tmp_path / "good.dmabuf"
    with CaptureWriter(path, Header("lab", "7.2", "x86_64", "0", 10**9, 0, [], [], {})) as writer:
        trace = Trace()
        device = trace.device("0000:00:05.0", driver="edu")
        for _ in range(2):
            trace.attach(trace.export(1 << 20), device)
            writer.write(trace.batch())
            writer.flush()
    return path


# ---- report


def test_a_good_capture(capture):
    done = tool("report", capture)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("content", [b"", b"\x8fDMA", b"#!/bin/sh\nexit\n", os.urandom(4096)])
def test_what_is_no_capture(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    assert str(path) in one_line(tool("report", path))


def test_a_torn_capture_is_read_as_far_as_it_goes(capture):
    capture.write_bytes(capture.read_bytes()[:-25])
    done = tool("report", capture)
    assert (done.returncode, done.stderr) == (0, "")
    assert "events" in done.stdout


def test_a_capture_torn_in_its_header(capture):
    capture.write_bytes(capture.read_bytes()[: PREAMBLE.size + 5])
    assert str(capture) in one_line(tool("report", capture))


def test_a_capture_of_a_later_version(capture):
    data = bytearray(capture.read_bytes())
    data[8] += 1  # the major version follows the magic
    capture.write_bytes(data)
    assert "version" in one_line(tool("report", capture))


def test_a_file_that_is_not_there_and_a_directory(tmp_path):
    assert "No such file" in one_line(tool("report", tmp_path / "nosuch"))
    assert str(tmp_path) in one_line(tool("report", tmp_path))


def test_a_file_that_may_not_be_read(capture):
    assert "ermission" in one_line(
        as_nobody("report", capture, before=f"os.chmod({str(capture)!r}, 0)")
    )


def test_a_good_and_a_bad_capture_together(capture, tmp_path):
    one_line(tool("report", capture, tmp_path / "nosuch"))


# ---- trace: all of this is told before anything is loaded, so root or not is the same


def test_output_exists(tmp_path):
    path = tmp_path / "mine"
    path.write_text("mine")
    assert "-f" in one_line(tool("trace", "-o", path))
    assert path.read_text() == "mine"


def test_no_directory_for_the_output(tmp_path):
    assert "no directory" in one_line(tool("trace", "-o", tmp_path / "nosuch" / "x"))


def test_no_such_process(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert str(ended.pid) in one_line(tool("trace", "-p", ended.pid))


def test_a_thread_is_not_a_process():
    ready, end = threading.Event(), threading.Event()

    def wait():
        ready.set()
        end.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    line = one_line(tool("trace", "-p", thread.native_id))
    end.set()
    thread.join()
    assert f"-p {os.getpid()}" in line


def test_no_such_device():
    line = one_line(tool("trace", "-D", "nosuch"))
    assert "nosuch" in line and "dmabuf-tool devices" in line


def test_without_root():
    assert "root" in one_line(as_nobody("trace"))


def test_no_such_command():
    assert "/no/such" in one_line(tool("trace", "--", "/no/such", "-x"))


# ---- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("--nosuch",),
        ("trace", "--nosuch"),
        ("trace", "-p", "one"),
        ("trace", "-d", "0"),
        ("trace", "-d", "-1"),
        ("trace", "-m", "3"),
        ("trace", "--format", "xml"),
        ("trace", "--max-segments", "0"),
        ("trace", "-o"),
        ("report",),
        ("report", "--only", "nosuch", "x.dmabuf"),
        ("report", "--by", "colour", "x.dmabuf"),
        ("list", "surplus"),
        ("list", "--by", "nothing"),
        ("devices", "--format", "xml"),
        ("doctor", "surplus"),
        (".surplus",),
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments):
    one_line(tool(*arguments), status=2)


def test_names_with_control_characters_stay_words():
    """What is echoed back does not reach the terminal as it is."""
    for arguments in (("report", "\x1b[2J"), ("trace", "-D", "\x1b[2J"), ("\x1b[2J",)):
        done = tool(*arguments)
        assert done.returncode in (1, 2)
        assert "\x1b" not in done.stderr


# ---- help


@pytest.mark.parametrize("arguments", [(), *((verb,) for verb in VERBS)], ids=" ".join)
def test_help_needs_nothing_large(arguments):
    code = (
        "import sys\n"
        "from dmabuf_tool.cli.main import cli\n"
        "try:\n"
        "    cli([*sys.argv[1:], '--help'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "large = {'numpy', 'bcc', 'rich', 'pyroute2', 'zstandard'} & set(sys.modules)\n"
        "assert not large, large\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
