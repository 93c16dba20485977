# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether processes and devices are there, on small fake trees."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dmabuf_tool.kernel import presence


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in (
        "sys/bus/pci/devices/0000:00:03.0",
        "sys/class/misc/udmabuf",
        "sys/devices/oddity",
        "proc/312",
        "proc/313",
    ):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "proc/312/status").write_text("Name:\tweston\nTgid:\t312\nPid:\t312\n")
    (tmp_path / "proc/313/status").write_bytes(b"Name:\t\xff\nTgid:\t312\nPid:\t313\n")
    return tmp_path


def test_devices_are_found_on_a_bus_in_a_class_or_at_the_top(root):
    for name in ("0000:00:03.0", "udmabuf", "oddity"):
        assert presence.has_device(name, root)
    for name in ("nosuch", "", "..", "pci/devices", "../bus"):
        assert not presence.has_device(name, root)


def test_processes_and_their_threads(root):
    assert presence.process_of(312, root) == 312
    assert presence.process_of(313, root) == 312
    assert presence.process_of(314, root) is None


def test_this_process():
    tids = []
    thread = threading.Thread(
        target=lambda: tids.append(presence.process_of(threading.get_native_id()))
    )
    thread.start()
    thread.join()
    assert tids == [os.getpid()] == [presence.process_of(os.getpid())]


def test_patterns():
    assert (
        presence.is_pattern("vivid.*") and presence.is_pattern("a?") and presence.is_pattern("[a]")
    )
    assert not presence.is_pattern("0000:00:03.0")
