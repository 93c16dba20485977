# SPDX-License-Identifier: GPL-2.0-or-later
"""The initrd: order of modules, compression, and the archive's format."""

import lzma
from pathlib import Path

import pytest
from vm import initrd
from vm.host import LabError


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Names, modes and contents in a newc archive, by the kernel's description of it."""
    found = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        at = (start + size + 3) & ~3


def test_archive_holds_files_and_the_directories_above() -> None:
    archive = initrd.Archive()
    archive.add("init", b"#!/bin/sh\n", 0o755)
    archive.add("lab/bin/tool", b"12345")
    archive.add("lab/bin/other", b"")
    data = archive.finish()
    assert entries(data) == {
        "init": (0o100755, b"#!/bin/sh\n"),
        "lab": (0o040755, b""),
        "lab/bin": (0o040755, b""),
        "lab/bin/tool": (0o100644, b"12345"),
        "lab/bin/other": (0o100644, b""),
    }
    assert len(data) % 512 == 0


def test_modules_come_after_what_they_need() -> None:
    dep = [
        "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz",
        "kernel/fs/jbd2/jbd2.ko.xz:",
        "kernel/lib/crc16.ko.xz:",
        "kernel/net/9p/9pnet-virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/lib/crc16.ko.xz",
    ]
    order = initrd.closure(dep, ["built_in", "ext4", "9pnet_virtio"])
    names = [Path(path).name.removesuffix(".ko.xz") for path in order]
    assert names == ["crc16", "jbd2", "ext4", "9pnet", "9pnet-virtio"]


def test_modules_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"plain")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"packed"))
    (tmp_path / "c.ko.new").write_bytes(b"?")
    assert initrd.expand(tmp_path / "a.ko") == b"plain"
    assert initrd.expand(tmp_path / "b.ko.xz") == b"packed"
    with pytest.raises(LabError):
        initrd.expand(tmp_path / "c.ko.new")
