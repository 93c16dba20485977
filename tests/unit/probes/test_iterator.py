# SPDX-License-Identifier: GPL-2.0-or-later
import os
import struct

import pytest

from dmabuf_tool.probes import iterator


def record(kind, ino, size, count, first, second=b""):
    text = first.ljust(32, b"\0") + second.ljust(32, b"\0")
    return struct.pack("=QQQQ64s", kind, ino, size, count, text)


def test_records():
    data = (
        record(0, 5, 8192, 4, b"system")
        + record(0, 2, 4096, 7, b"virtio_gpu", b"\x1b[31mred\n")
        + record(1, 2, 4096, 7, b"vgem")
        + record(1, 2, 4096, 7, b"0000:00:06.0-with-a-name-that-is-", b"longer than one text")
    )
    first, second = iterator.parse(data)
    assert (first.ino, first.size, first.count, first.name) == (5, 8192, 4, None)
    assert (second.exporter, second.name) == ("virtio_gpu", "\x1b[31mred\n")
    assert second.devices[0] == "vgem"
    assert iterator.parse(data[:-1])[1].devices == ("vgem",)  # torn: the rest is read
    assert iterator.parse(b"") == ()


def test_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert iterator.read().status == "denied"


@pytest.mark.native
@pytest.mark.skipif(os.geteuid() != 0, reason="loads a BPF program")
def test_a_kernel_without_it_says_so_in_one_line():
    found = iterator.read()
    assert found.status == "ok" or (found.detail and "\n" not in found.detail)
