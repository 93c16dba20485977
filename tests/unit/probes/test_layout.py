# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel structs: definitions that are every kernel's, and the values for one."""

from __future__ import annotations

from typing import Any

import pytest

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Member
from dmabuf_tool.probes import iterator, layout, marks, source
from dmabuf_tool.probes.providers import PROVIDERS

BITS = (("thing", "is_on"),)
STRUCTS = {"thing": {"plain": "u64 {}", "inner.deep": "u64 {}", "late?": "void *{}"}}


class Types:
    """A kernel's BTF, as far as layout.py asks."""

    def __init__(self, **members: Member) -> None:
        self._members = members

    def members(self, name: str) -> dict[str, Member]:
        return self._members if name == "thing" else {}

    def nested(self, name: str, member: str) -> dict[str, Member]:
        return {"deep": Member(72, 8)} if (name, member) == ("thing", "inner") else {}


def values(**members: Member) -> dict[str, int]:
    """Of the one struct, on a kernel where it has these members."""
    btf: Any = Types(**members)
    return layout.values(btf, STRUCTS, BITS)


def test_members_are_where_the_kernel_has_them() -> None:
    assert values(plain=Member(8, 8), late=Member(24, 8, pointer=True), is_on=Member(40, 1, 4)) == {
        **{"thing.plain": 8, "thing.inner.deep": 72, "thing.late": 24, "thing.is_on": 40},
        **{"HAVE_thing_late": 1, "MASK_thing_is_on": 4},
    }


def test_what_a_kernel_has_not() -> None:
    found = values(plain=Member(8, 8))
    assert found["HAVE_thing_late"] == found["MASK_thing_is_on"] == 0


def test_what_every_kernel_must_have() -> None:
    with pytest.raises(ToolError, match="struct thing has no member plain"):
        values(late=Member(24, 8))
    with pytest.raises(ToolError, match="no struct thing"):
        values()


class Everything(Types):
    """A kernel that has whatever it is asked for."""

    def members(self, name: str) -> dict[str, Member]:
        return Anything({"any": Member(0, 8)})

    def nested(self, name: str, member: str) -> dict[str, Member]:
        return self.members(name)

    def enum_value(self, enum: str, name: str) -> int:
        return 6

    def size_of(self, name: str) -> int:
        return layout.SCATTERLIST_SIZE


class Anything(dict[str, Member]):
    """All members."""

    def get(self, name: str, default: Any = None) -> Any:
        return Member(8, 8, 1)


def test_the_loader_knows_a_value_for_each_mark() -> None:
    """Of the core's texts and of every provider's."""
    every: Any = Everything()
    core = {*layout.kernel_values(every), *source.Options().facts(4096)}
    core |= {marks.ROLE, source.KRETPROBES}
    assert set(source.definitions({}).names.values()) == core
    for one in PROVIDERS:
        defined = source.definitions(one.structs, one.bitfields)
        mine = layout.values(every, one.structs, one.bitfields)
        assert set(defined.names.values()) == core | set(mine), one.module


def test_scatterlists_that_are_not_as_known() -> None:
    other: Any = Everything()
    other.size_of = lambda name: 24
    with pytest.raises(ToolError, match="struct scatterlist"):
        layout.kernel_values(other)


def test_the_iterator_s_text_needs_no_more_than_is_known() -> None:
    every: Any = Everything()
    assert set(iterator.unit(source.Target("x86_64", 4096)).marks.values()) == {
        *layout.values(every, iterator.STRUCTS, ())
    }
