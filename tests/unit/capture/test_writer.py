# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written is read back, whatever happens to the recorder, the disk or the path."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from capture_samples import HEADER, batch, batches, entries_of, read, record
from hypothesis import given, settings
from hypothesis import strategies as st

from dmabuf_tool.capture import writer as writer_module
from dmabuf_tool.capture.writer import CaptureFull, CaptureWriter, merge
from dmabuf_tool.errors import ToolError
from dmabuf_tool.schema import Batch, Losses


@settings(deadline=None)
@given(given_batches=st.lists(batches(), max_size=6), every=st.booleans(), piece=st.booleans())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    given_batches: list[Batch],
    every: bool,
    piece: bool,
) -> None:
    path = tmp_path_factory.mktemp("round") / "x.dmabuf"
    with pytest.MonkeyPatch.context() as patch:
        if piece:  # force the cutting of what is too large for one frame
            patch.setattr(writer_module, "PIECE_BYTES", 230)
        record(path, given_batches, every=every)
    got, reader = read(path)
    assert reader.notes == []
    assert reader.closed
    assert reader.reason == "done"
    assert b"".join(one.events.tobytes() for one in got) == b"".join(
        one.events.tobytes() for one in given_batches
    )
    assert entries_of(got) == entries_of(given_batches)
    expected: dict[int, tuple[str, ...]] = {}
    found: dict[int, tuple[str, ...]] = {}
    for one in given_batches:
        expected |= one.stacks
    for one in got:
        found |= one.stacks
    assert found == expected
    if given_batches:
        assert reader.losses == given_batches[-1].losses


def test_header_and_inventory_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with CaptureWriter(path, HEADER) as writer:
        writer.write_inventory({"exits": [[312, 5]]})
        writer.flush()
        writer.write_inventory({"uevents": ["add"]})
        writer.write_inventory({"devices": {"a": {}}})
    assert writer.bytes_written == path.stat().st_size
    _, reader = read(path)
    assert reader.header.to_json() == {**HEADER.to_json(), "command": tuple(HEADER.command),
                                       "plan": tuple(HEADER.plan)}  # fmt: skip
    assert reader.inventory == [
        {"exits": [[312, 5]]},
        {"uevents": ["add"]},
        {"devices": {"a": {}}},
    ]


def test_small_batches_share_a_frame_and_a_loss_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "x"
    lossy = Losses(events=7)
    stream = [batch(1), batch(2), batch(3, losses=lossy), batch(4, losses=lossy)]
    record(path, stream, every=False)
    got, _ = read(path)
    assert [len(one.events) for one in got] == [4, 4]
    assert [one.losses for one in got] == [Losses(), lossy]
    assert got[0].tables["offset"].tolist() == [0, 1, 3, 4]


def test_nothing_is_held_back_longer_than_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    path = tmp_path / "x"
    with CaptureWriter(path, HEADER) as writer:
        start = writer.bytes_written
        writer.write(batch(1))
        assert writer.bytes_written == start
        now[0] = 1.0
        writer.write(merge([batch(2)]))
        assert len(read(path)[0]) == 1
        written = writer.bytes_written
        writer.write(batch(3))
        now[0] = 1.9
        writer.tick()
        assert writer.bytes_written == written
        now[0] = 2.0
        writer.tick()
        assert writer.bytes_written > written
        written = writer.bytes_written
        now[0] = 3.0
        writer.tick()
        assert writer.bytes_written == written, "nothing new, nothing written"


def test_merge_moves_tables_with_their_segments() -> None:
    one = merge([batch(1), batch(2)])
    assert one.segments["dma_address"][one.tables["offset"]].tolist() == [1000, 1001, 2000, 2001]
    assert set(one.stacks) == {1, 2}


def test_mode_is_0600_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        record(tmp_path / "x", [])
        record(tmp_path / "x", [])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_never_over_an_existing_file_without_force(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("precious")
    with pytest.raises(ToolError, match="exists already; -f overwrites it"):
        CaptureWriter(path, HEADER)
    assert path.read_text() == "precious"
    opened = path.open()
    record(path, [batch(1)])
    assert read(path)[1].closed
    assert opened.read() == "precious", "a new inode: readers of the old file are left alone"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_links_devices_and_directories_are_never_replaced(tmp_path: Path, force: bool) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (link, dangling, tmp_path, Path("/dev/full")):
        with pytest.raises(ToolError, match="not a regular file"):
            CaptureWriter(path, HEADER, force=force)
    assert target.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x"):
        with pytest.raises(ToolError, match=str(path)):
            CaptureWriter(path, HEADER)


def limited(tmp_path: Path, script: str) -> list[str]:
    """Run a script in a child whose files may have 20,000 bytes; give its output lines."""
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from capture_samples import *\n"
        "from dmabuf_tool.capture.writer import CaptureFull\n"
        "import numpy as np\n"
        "path = Path(sys.argv[2])\n"
        "def noisy(n):\n"
        "    one = batch(n, 100)\n"
        "    one.segments['page'] = np.random.default_rng(n).integers(0, 2**63, 100)\n"
        "    return one\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program + script, Path(__file__).parent, tmp_path / "x"],
        check=True,
        text=True,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    return output.stdout.splitlines()


def test_file_limit_stops_recording_once_and_keeps_whole_frames(tmp_path: Path) -> None:
    lines = limited(
        tmp_path,
        "with CaptureWriter(path, HEADER) as writer:\n"
        "    for n in range(60):\n"
        "        try:\n"
        "            writer.write(noisy(n)); writer.flush()\n"
        "        except CaptureFull as error:\n"
        "            print(n, error)\n"
        "    print(writer.full, writer.bytes_written)\n",
    )
    assert len(lines) == 2
    number = int(lines[0].split()[0])
    assert "File too large: recording stopped after" in lines[0]
    got, reader = read(tmp_path / "x")
    assert len(got) == number > 3
    assert reader.reason == "disk full"
    assert reader.notes == ["the disk was full: recording ended before the trace did"]
    assert lines[1] == f"True {reader.size}"


def test_no_room_for_the_header_leaves_no_file(tmp_path: Path) -> None:
    lines = limited(
        tmp_path,
        "from dataclasses import replace\n"
        "try:\n"
        "    CaptureWriter(path, replace(HEADER, devices={'a': 'x' * 30000}))\n"
        "except CaptureFull as error:\n"
        "    print(error)\n",
    )
    assert lines == [f"{tmp_path / 'x'}: cannot create: File too large"]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mount is not allowed here")
    try:
        noise = np.random.default_rng(1).bytes(32 * 1700)
        one = batch(1, 1700)
        one = Batch(one.events, one.tables, np.frombuffer(noise, one.segments.dtype))
        writer = CaptureWriter(disk / "x", HEADER)
        told = 0
        for _ in range(20):
            try:
                writer.write(one)
                writer.flush()
            except CaptureFull as error:
                told += 1
                assert "No space left on device" in str(error)
        writer.close("done")
        assert told == 1
        got, reader = read(disk / "x")
        assert 3 <= len(got) <= 5
        assert reader.reason == "disk full"
        (disk / "ballast").touch()
        with (disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
            while True:
                ballast.write(bytes(4096))
        with pytest.raises(CaptureFull, match="cannot create: No space left"):
            CaptureWriter(disk / "y", HEADER)
        assert not (disk / "y").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interrupt_inside_a_write_leaves_whole_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    writer = CaptureWriter(path, HEADER)
    writer.write(batch(1))
    writer.flush()
    writer.write(batch(2))
    real = os.pwrite

    def interrupted(fd: int, data: memoryview, offset: int) -> int:
        real(fd, data[:7], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    monkeypatch.setattr(os, "pwrite", real)
    writer.close("interrupted")
    got, reader = read(path)
    assert [one.events["mapping"][0] for one in got] == [1, 2]
    assert reader.reason == "interrupted"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:5], offset))
    record(tmp_path / "x", [batch(1)])
    assert read(tmp_path / "x")[1].closed


def test_an_error_reported_at_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CaptureWriter(tmp_path / "x", HEADER)
    real = os.close

    def close(fd: int) -> None:
        real(fd)
        raise OSError(errno.EDQUOT, "quota")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        with pytest.raises(CaptureFull, match="quota"):
            writer.close("done")
    writer.close("done")


def test_kill_9_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from capture_samples import *\n"
        "writer = CaptureWriter(Path(sys.argv[2]), HEADER)\n"
        "for n in range(10**9):\n"
        "    writer.write(batch(n)); writer.flush()\n"
        "    print(n, flush=True)\n"
    )
    path = tmp_path / "x"
    with subprocess.Popen(
        [sys.executable, "-c", program, Path(__file__).parent, path],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        for _ in range(50):
            seen = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        seen = max([seen, *(int(line) for line in child.stdout if line.endswith("\n"))])
    got, reader = read(path)
    assert len(got) >= seen + 1
    assert not reader.closed
    assert len(reader.notes) == 1
