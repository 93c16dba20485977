# SPDX-License-Identifier: GPL-2.0-or-later
import os

import pytest
from tree import FDINFO_6_1, FDINFO_NAMED, descriptor, process, write

from dmabuf_tool.kernel import fdinfo

# drm_show_fdinfo() of Linux 6.12, xe.
DRM = (
    b"pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t437\ndrm-driver:\txe\ndrm-client-id:\t11\n"
    b"drm-pdev:\t0000:03:00.0\ndrm-total-system:\t0\n"
)
MAPS = (
    b"55d0c3a00000-55d0c3a01000 r--p 00000000 fe:00 1234 /usr/bin/python3.11\n"
    b"7f0000000000-7f0000200000 rw-s 00000000 00:0e 2                          /dmabuf:\n"
    b"7f0000400000-7f0000401000 rw-s 00000000 00:0e 9                          "
    b"/dmabuf:a\\012b\n"
)


def test_fdinfo_without_a_name():
    assert fdinfo.parse(FDINFO_6_1) == fdinfo.Descriptor(2, 2 << 20, 7, "virtio_gpu", None)


def test_a_name_with_line_breaks_cannot_change_other_keys():
    found = fdinfo.parse(FDINFO_NAMED.replace(b"red", b"\nino:\t99\nsize:\t1"))
    assert (found.ino, found.size) == (1, 1 << 20)
    assert found.name == "\x1b[31m\nino:\t99\nsize:\t1\n\tAttached Devices:"


def test_other_files_are_not_dma_bufs():
    assert fdinfo.parse(b"pos:\t0\nflags:\t02\nmnt_id:\t11\nino:\t2\n") is None
    assert fdinfo.parse(b"") is None


def test_drm():
    assert fdinfo.parse_drm(5, DRM) == fdinfo.DrmClient(5, "xe", 11, "0000:03:00.0", None)
    assert fdinfo.parse_drm(5, b"pos:\t0\nflags:\t02\n") is None


@pytest.fixture
def root(tmp_path):
    process(tmp_path, 312, "weston", MAPS)
    descriptor(tmp_path, 312, 9, b"/dmabuf:", FDINFO_6_1)
    descriptor(tmp_path, 312, 4, b"/dmabuf:", FDINFO_6_1)
    descriptor(tmp_path, 312, 5, b"/dev/dri/renderD128", DRM)
    descriptor(tmp_path, 312, 1, b"/dmabuf:just-a-file", b"pos:\t0\nflags:\t02\nino:\t77\n")
    descriptor(tmp_path, 312, 2, b"socket:[4]", b"pos:\t0\n")
    process(tmp_path, 40, "a) S b\x1b")
    descriptor(tmp_path, 40, 3, b"/dmabuf:\x1b[31mred\n\tAttached Devices:", FDINFO_NAMED)
    process(tmp_path, 7, "nothing")
    write(tmp_path, "proc/version")
    return tmp_path


def test_scan(root):
    found = fdinfo.scan(root)
    assert [(process.pid, process.comm) for process in found.processes] == [
        *((40, "a) S b\x1b"), (312, "weston"))
    ]
    first, second = found.processes
    assert first.buffers == {1: fdinfo.Holding([3])}
    assert second.buffers == {
        2: fdinfo.Holding([4, 9], 1, 2 << 20),
        9: fdinfo.Holding([], 1, 4096),
    }
    assert [client.fd for client in second.drm] == [5]
    assert set(found.buffers) == {1, 2}
    assert (found.scanned, found.denied, found.vanished, found.complete) == (3, 0, 0, True)


def test_a_file_on_disk_is_no_buffer(tmp_path):
    process(tmp_path, 5, "x", b"7f00-8f00 rw-s 00000000 fe:00 2 /dmabuf:mine\n")
    assert fdinfo.scan(tmp_path).processes == []


def test_without_maps(root):
    assert fdinfo.scan(root, maps=False).processes[1].buffers == {2: fdinfo.Holding([4, 9])}


def test_processes_that_go_away_are_left_out(root):
    (root / "proc/999").mkdir()  # gone between the listing and the look
    (root / "proc/312/fdinfo/9").unlink()  # closed between the link and its fdinfo
    found = fdinfo.scan(root)
    assert found.vanished == 1
    assert found.processes[1].buffers[2].fds == [4]


def test_processes_that_may_not_be_read_are_counted(root, monkeypatch):
    process(root, 2, "kthreadd")
    write(root, "proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0")
    listdir = os.listdir

    def refuse(path):
        if path.endswith((b"/2/fd", b"/40/fd")):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    found = fdinfo.scan(root)
    assert (found.denied, found.complete) == (1, False)  # a kernel thread holds nothing
    assert [process.pid for process in found.processes] == [312]


def test_a_proc_that_hides_processes_is_not_complete(root, monkeypatch):
    write(root, "proc/mounts", "proc /proc proc rw,nosuid,hidepid=invisible 0 0\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not fdinfo.scan(root).complete


def test_this_machine():
    assert fdinfo.scan().scanned > 0
    assert fdinfo.comm(os.getpid())
    assert fdinfo.comm(2**22 + 1) == ""
