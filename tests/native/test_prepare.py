# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes that were compiled when the tool was installed: a start compiles nothing."""

from __future__ import annotations

import native
import pytest

from dmabuf_tool.errors import ToolError
from dmabuf_tool.probes import compiler, objects, plan, prepare, source


def no_compiler(*_):
    """In the place of compiler.compile_one()."""
    raise ToolError("compiled again")


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The tests' own subject, compiled into a directory that takes the place of the package's."""
    target = source.Target.here()
    can = plan.Abilities(False, False, False, raw_tracepoint=True)
    ways = plan.resolve(can, lambda _: None, lambda _: True, (), (native.HOOK,))
    units = source.compose((native.HOOK,), ways, source.definitions({}), target)
    monkeypatch.setattr(prepare, "units", lambda target: iter(units))
    assert prepare.prepare(tmp_path / "objects", target) == len(units) == 1
    monkeypatch.setattr(objects, "OBJECTS_DIRECTORY", tmp_path / "objects")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    return tmp_path / "objects"


def test_what_came_with_the_tool_is_not_compiled(monkeypatch, installed):
    monkeypatch.setattr(compiler, "compile_one", no_compiler)
    for ring in (1 << 16, 1 << 18):  # a larger one is another map, no other text
        native.load(ring).close()
    assert not (installed.parent / "nothing").exists()


def test_what_came_damaged_is_compiled_once(monkeypatch, installed):
    (only,) = installed.iterdir()
    only.write_text("{}")
    native.load(1 << 16).close()
    monkeypatch.setattr(compiler, "compile_one", no_compiler)
    native.load(1 << 16).close()
