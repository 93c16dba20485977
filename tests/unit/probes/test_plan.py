# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks that stand in for each other: births of domains, before 6.11, until 6.13, and since."""

from __future__ import annotations

import pytest

from dmabuf_tool.probes import plan

CAN = plan.Abilities(fentry=True, kprobe_multi=False, kprobe=True, raw_tracepoint=True)
NEW, OLD = "iommu_paging_domain_alloc", "iommu_domain_alloc"
NEWEST = "iommu_paging_domain_alloc_flags"


def births(*functions: str, refused: tuple[tuple[str, str], ...] = ()) -> dict[str, str]:
    """The function hooked by each hook of births, "" where it is missing."""
    others = {one for hook in plan.HOOKS for one in hook.functions} - {NEW, OLD, NEWEST}
    there = others | set(functions)
    ways = plan.resolve(CAN, lambda f: 2 if f in there else None, lambda _: True, refused)
    return {way.hook.name: way.function for way in ways if way.hook.beside}


@pytest.mark.parametrize(
    ("functions", "hooked"),
    [
        ((OLD,), {"domain_alloc_bus": OLD}),
        ((NEW, OLD), {"domain_alloc": NEW, "domain_alloc_bus": OLD}),
        ((NEWEST, NEW), {"domain_alloc": NEWEST}),
        ((), {"domain_alloc": "", "domain_alloc_bus": ""}),
    ],
)
def test_births_by_either_function(functions: tuple[str, ...], hooked: dict[str, str]) -> None:
    assert births(*functions) == hooked


def test_a_function_that_is_refused_is_missing_though_the_other_is_there() -> None:
    refused = tuple((OLD, method) for method in CAN.methods())
    assert births(NEW, OLD, refused=refused) == {"domain_alloc": NEW, "domain_alloc_bus": ""}
