# SPDX-License-Identifier: GPL-2.0-or-later
import gzip
import os
import subprocess
import sys
import time

from tree import write

from dmabuf_tool.kernel import config
from dmabuf_tool.kernel.machine import clocks, machine, process_start_ns


def test_machine():
    found = machine()
    assert (found.kernel, found.arch) == (os.uname().release, os.uname().machine)
    assert len(found.boot_id) == 36
    assert found.page_size >= 4096
    assert found.cpus >= 1


def test_a_machine_without_proc(tmp_path):
    assert machine(tmp_path).boot_id == ""


def test_clocks_turn_monotonic_into_the_others():
    found = clocks()
    assert abs(time.monotonic_ns() + found.realtime_ns - time.time_ns()) < 10**9
    assert found.boottime_ns >= -found.error_ns
    assert found.error_ns < 10**9


CONFIG = """\
#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_KPROBE_EVENTS=y
# CONFIG_UDMABUF is not set
CONFIG_DMABUF_HEAPS=m
CONFIG_LSM="landlock,lockdown"
"""


def test_when_a_process_began():
    """The name of a process may hold what looks like the end of it."""
    code = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b') R 1 (', 0, 0, 0); time.sleep(0.3);"
        "from dmabuf_tool.kernel.machine import process_start_ns; print(process_start_ns())"
    )
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    before = time.monotonic_ns()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        after = time.monotonic_ns()
        began = int(process.communicate()[0])
    assert before - 2 * tick <= began <= after
    assert process_start_ns() < before


def test_config():
    assert config.parse(CONFIG) == {
        "CONFIG_KPROBE_EVENTS": "y",
        "CONFIG_UDMABUF": "n",
        "CONFIG_DMABUF_HEAPS": "m",
        "CONFIG_LSM": "landlock,lockdown",
    }


def test_config_is_found(tmp_path):
    assert config.read(tmp_path, "6.1.0") is None
    write(tmp_path, "boot/config-6.1.0", CONFIG)
    assert config.read(tmp_path, "6.1.0")["CONFIG_KPROBE_EVENTS"] == "y"
    assert config.read(tmp_path, "6.12.0") is None
    write(tmp_path, "proc/config.gz", gzip.compress(b"CONFIG_KPROBE_EVENTS=n\n"))
    assert config.read(tmp_path, "6.1.0")["CONFIG_KPROBE_EVENTS"] == "n"
    write(tmp_path, "proc/config.gz", b"broken")
    assert config.read(tmp_path, "6.1.0")["CONFIG_KPROBE_EVENTS"] == "y"
