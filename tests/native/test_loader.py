# SPDX-License-Identifier: GPL-2.0-or-later
"""The loader child: what it hands over, what it says when it cannot, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import native
import pytest

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import btf
from dmabuf_tool.probes import attacher, bpf, compiler, links, loader, source

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]


def holder(*arguments):
    return subprocess.Popen(
        [sys.executable, str(HERE / "holder.py"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def descendants(pid):
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(child)]
    return found


def gone(pid):
    """Ended; who it is left to may not have collected it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_closing_the_descriptors_removes_the_programs(until):
    loaded = native.load(1 << 16)
    (program,) = map(native.program_id, loaded.programs.values())
    assert native.exists(program)
    assert set(loaded.maps) >= {"events", "stats"}  # those its text uses
    loaded.close()
    until(lambda: not native.exists(program))


def test_the_child_is_collected():
    native.load(1 << 16).close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_parent_stays_small():
    """bcc and LLVM were in the child only."""
    native.load(1 << 16).close()
    assert "bcc" not in sys.modules
    assert "libbcc" not in Path("/proc/self/maps").read_text()


def test_an_abandoned_child_is_gone():
    loading = loader.start(native.options(1 << 16), (native.HOOK,))
    loading.abandon()
    loading.abandon()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_stop_ends_the_wait():
    reader, writer = os.pipe()
    os.write(writer, b"\0")
    # With an empty cache the child is busy for long enough.
    loading = loader.start(native.options(1 << 17), (native.HOOK,))
    try:
        with pytest.raises(ToolError, match="stopped before tracing began"):
            loading.finish(reader)
    finally:
        loading.abandon()
        os.close(reader)
        os.close(writer)


def test_kill_leaves_nothing_in_the_kernel(until):
    process = holder()
    (program,) = map(int, process.stdout.readline().split())
    assert native.exists(program)
    process.kill()
    process.communicate()
    until(lambda: not native.exists(program))


def test_kill_while_compiling_ends_the_compilers(until, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process = holder("--compiling")
    assert process.stdout.readline() == "compiling\n"
    children = descendants(process.pid)
    assert len(children) >= 2
    process.kill()
    process.wait()
    until(lambda: all(map(gone, children)))
    process.communicate()


def test_the_second_start_compiles_nothing(monkeypatch):
    native.load(1 << 16).close()

    def compile_one(*_):
        raise ToolError("compiled again")

    monkeypatch.setattr(compiler, "compile_one", compile_one)
    native.load(1 << 16).close()


def refusal(monkeypatch, tmp_path, hook=native.HOOK):
    """The one line that the loader ends with, with nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ToolError) as caught:
        native.load(1 << 16, (hook,))
    line = str(caught.value)
    assert "\n" not in line
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    return line


def test_without_bcc_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bcc", None)
    assert "python3-bpfcc" in refusal(monkeypatch, tmp_path)


def test_without_btf(monkeypatch, tmp_path):
    absent = tmp_path / "vmlinux"
    monkeypatch.setattr(attacher, "Btf", lambda: btf.Btf(absent))
    assert "BTF" in refusal(monkeypatch, tmp_path)


def test_what_does_not_compile(monkeypatch, tmp_path):
    text = tmp_path / "wrong.bpf.c"
    text.write_text("static int wrong = nowhere;\n")
    monkeypatch.setitem(source.SUBJECTS, "native", (str(text),))
    line = refusal(monkeypatch, tmp_path)
    assert "cannot compile" in line and "nowhere" in line


def test_a_child_that_dies(monkeypatch, tmp_path):
    monkeypatch.setattr(attacher, "attach", lambda *_: os._exit(9))
    assert "the loader died" in refusal(monkeypatch, tmp_path)


def test_a_probe_that_will_not_attach_is_left_out(monkeypatch):
    """The rest is loaded; the plan says what is missing."""
    real = links.attach_raw_tracepoint

    def attach(program, name):
        if name == "sys_exit":
            raise bpf.LoadError(f"cannot attach to {name}", 22)
        return real(program, name)

    monkeypatch.setattr(links, "attach_raw_tracepoint", attach)
    other = replace(native.HOOK, raw_tracepoint="sys_exit", lost="the rest")
    loaded = native.load(1 << 16, (replace(other, name="none"), native.HOOK))
    try:
        assert [way["method"] for way in loaded.ways] == ["missing", "raw_tracepoint"]
        assert [way["lost"] for way in loaded.missing] == ["the rest"]
        assert len(loaded.programs) == len(loaded.links) == 1
    finally:
        loaded.close()


def test_a_required_probe_that_will_not_attach(monkeypatch, tmp_path):
    hook = replace(native.HOOK, functions=("nosuch_function",), raw_tracepoint="", required=True)
    line = refusal(monkeypatch, tmp_path, hook)
    assert "nosuch_function" in line and "doctor" in line
