# SPDX-License-Identifier: GPL-2.0-or-later
import os
import threading
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tree import BUFINFO_5_15, BUFINFO_6_1, BUFINFO_7_2, write

from dmabuf_tool.kernel import bufinfo


def test_linux_6_1():
    first, second = bufinfo.parse(BUFINFO_6_1)
    assert (first.ino, first.size, first.exporter, first.name) == (2, 2 << 20, "virtio_gpu", None)
    assert (first.count, first.flags, first.mode) == (7, 2, 0x80007)
    assert first.devices == ("vgem", "vgem", "0000:00:06.0")
    assert second.name == "\x1b[31mred\n\tAttached Devices:"
    assert second.devices == ()


def test_linux_7_2():
    first, second = bufinfo.parse(BUFINFO_7_2)
    assert first.mode == 0x2080007
    assert (second.ino, second.size) == (123456789012, 16 << 30)
    assert second.name == "caméra"
    assert second.devices == ("vgem",)


def test_linux_5_15():
    (only,) = bufinfo.parse(BUFINFO_5_15)
    assert (only.ino, only.name, only.devices) == (12, None, ("0000:01:00.0",))


def test_nothing_is_nothing():
    assert bufinfo.parse(b"") == ()
    assert bufinfo.parse(b"\nDma-buf Objects:\n\nTotal 0 objects, 0 bytes\n") == ()


def test_a_row_that_is_cut_off_is_kept():
    cut = BUFINFO_6_1[: BUFINFO_6_1.index(b"\tAttached")]
    (only,) = bufinfo.parse(cut)
    assert (only.ino, only.devices) == (2, ())


# What DMA_BUF_SET_NAME takes: 31 bytes, any but NUL.
_NAMES = st.one_of(
    st.binary(min_size=1, max_size=31),
    st.lists(
        st.sampled_from(
            [b"\n", b"\t", b"\tAttached Devices:\n", b"\tevil\n", b"Total 0 devices attached\n"]
        ),
        min_size=1,
    ).map(lambda parts: b"".join(parts)[:31]),
).map(lambda name: name.replace(b"\0", b"x"))


@given(st.lists(_NAMES, max_size=4))
def test_no_name_hides_or_fakes_a_buffer_or_a_device(names):
    rows = b"".join(
        b"%08d\t00000002\t00080007\t%08d\tsystem\t%08d\t%s\n\tAttached Devices:\n\tdev%d\n"
        b"Total 1 devices attached\n\n" % (4096 * ino, ino, ino, name, ino)
        for ino, name in enumerate(names)
    )
    found = bufinfo.parse(b"\nDma-buf Objects:\nsize\tname\n" + rows + b"\nTotal 9 objects\n")
    assert [(buffer.ino, buffer.size, buffer.devices) for buffer in found] == [
        (ino, 4096 * ino, (f"dev{ino}",)) for ino in range(len(names))
    ]


def test_read(tmp_path):
    write(tmp_path, bufinfo.PATH, BUFINFO_6_1)
    found = bufinfo.read(tmp_path)
    assert (found.status, len(found.buffers)) == ("ok", 2)


def test_debugfs_that_is_not_mounted_names_the_mount(tmp_path):
    assert "CONFIG_DEBUG_FS" in bufinfo.read(tmp_path).detail
    (tmp_path / "sys/kernel/debug").mkdir(parents=True)
    found = bufinfo.read(tmp_path)
    assert found.status == "absent"
    assert "mount -t debugfs" in found.detail


def test_a_kernel_without_dma_buf(tmp_path):
    write(tmp_path, "sys/kernel/debug/other")
    assert "CONFIG_DMA_SHARED_BUFFER" in bufinfo.read(tmp_path).detail


def test_without_root(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = bufinfo.read(tmp_path)
    assert (found.status, found.buffers) == ("denied", ())


def test_a_stuck_lock_costs_the_timeout_once(tmp_path):
    path = tmp_path / bufinfo.PATH
    path.parent.mkdir(parents=True)
    os.mkfifo(path)  # a reader of it waits for a writer, as one of bufinfo does for a lock
    begun = time.monotonic()
    assert bufinfo.read(tmp_path, timeout=0.05).status == "timeout"
    assert bufinfo.read(tmp_path, timeout=60).status == "timeout"
    assert time.monotonic() - begun < 10
    waiting = [thread for thread in threading.enumerate() if thread.name == "bufinfo"]
    assert len(waiting) == 1
    with path.open("wb") as lock:
        lock.write(BUFINFO_6_1)
    waiting[0].join(10)
    path.unlink()
    path.write_bytes(BUFINFO_6_1)
    assert bufinfo.read(tmp_path).status == "ok"
