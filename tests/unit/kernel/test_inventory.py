# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from tree import BUFINFO_6_1, FDINFO_6_1, descriptor, process, write

from dmabuf_tool.kernel import bufinfo, inventory


@pytest.fixture
def root(tmp_path):
    write(tmp_path, bufinfo.PATH, BUFINFO_6_1)
    process(tmp_path, 312, "weston", b"7f0000000000-7f0000200000 rw-s 00000000 00:0e 2 /dmabuf:\n")
    for fd in (4, 9):
        descriptor(tmp_path, 312, fd, b"/dmabuf:", FDINFO_6_1)
    process(tmp_path, 400, "camera")
    descriptor(tmp_path, 400, 3, b"/dmabuf:", FDINFO_6_1)
    return tmp_path


def test_joined_by_inode(root):
    kernel_only, shared = inventory.take(root).buffers
    assert (kernel_only.ino, kernel_only.holders, kernel_only.other_refs) == (1, (), 4)
    assert shared.devices == ("vgem", "vgem", "0000:00:06.0")
    assert shared.holders == (
        inventory.Holder(312, "weston", (4, 9), 1, 2 << 20),
        inventory.Holder(400, "camera", (3,), 0, 0),
    )
    assert shared.other_refs == 7 - 4


def test_without_bufinfo_attachments_are_unknown(root):
    (root / bufinfo.PATH).unlink()
    found = inventory.take(root)
    assert [(buffer.ino, buffer.size, buffer.devices) for buffer in found.buffers] == [
        (2, 2 << 20, None)
    ]
    assert found.readable
    assert not found.buffers_complete


def test_another_source_stands_in_for_bufinfo(root):
    (root / bufinfo.PATH).unlink()
    rows = bufinfo.parse(BUFINFO_6_1)
    found = inventory.take(root, instead=lambda: bufinfo.Bufinfo("ok", "by another", rows))
    assert len(found.buffers) == 2
    assert found.buffers_complete
    assert [source.name for source in found.sources] == ["bufinfo", "iterator", "processes"]
    refused = inventory.take(root, instead=lambda: bufinfo.Bufinfo("absent", "no iterator"))
    assert not refused.buffers_complete
    assert refused.buffers[0].devices is None


def test_a_bufinfo_that_answers_is_enough(root):
    def never():
        raise AssertionError

    assert len(inventory.take(root, instead=never).buffers) == 2


def test_without_proc_holders_are_unknown(tmp_path):
    write(tmp_path, bufinfo.PATH, BUFINFO_6_1)
    found = inventory.take(tmp_path)
    assert len(found.buffers) == 2
    assert not found.holders_complete
    assert found.buffers[0].other_refs is None


def test_nothing_can_be_read(tmp_path):
    assert not inventory.take(tmp_path).readable


def test_select(root):
    found = inventory.take(root)

    def inos(**filters):
        return [buffer.ino for buffer in inventory.select(found, **filters).buffers]

    assert inos() == [1, 2]
    assert inos(pids=[400]) == [2]
    assert inos(pids=[1]) == []
    assert inos(comms=["west*"]) == [2]
    assert inos(exporters=["drm", "nope"]) == [1]
    assert inos(devices=["0000:00:*"]) == [2]
    assert inos(pids=[400], exporters=["drm"]) == []
