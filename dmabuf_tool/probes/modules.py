# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers whose modules are loaded: their types, and the plan of their hooks.

A provider must not cost the trace: where its module's structs or functions are not as known it is
left out, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import VMLINUX, Btf
from dmabuf_tool.probes import layout, plan, source
from dmabuf_tool.probes.providers import PROVIDERS, Provider

_SYS_MODULE: Final = Path("/sys/module")

FIRST_NUMBER: Final = 64
NUMBERS: Final = 12
"""Numbers that key saved calls (kprobe.bpf.h): the core's hooks have those up to FIRST_NUMBER, each
provider NUMBERS more, so that whoever comes later takes nobody's."""

ATTACHED, WAITING, ABSENT, LEFT_OUT = "attached", "waiting", "absent", "left out"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a provider stands: attached, waiting for its module (absent: which this kernel did not
    come with), or left out for a reason."""

    module: str
    state: str
    why: str = ""

    def to_json(self) -> dict[str, str]:
        """As the loaders hand it over, and as in a capture's inventory."""
        return {"module": self.module, "state": self.state, "why": self.why}


@dataclass(slots=True, eq=False)
class Module:
    """A provider whose module is there."""

    provider: Provider
    btf: Btf
    values: dict[str, int]
    """What stands at the marks of what its programs read."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """(function, method) pairs the kernel turned down."""

    def resolve(self, can: plan.Abilities) -> list[plan.Way]:
        """Choose a way for each hook. Raises ToolError where one is missing that must be."""
        ways = plan.resolve(
            can, self._arity, self.btf.has_tracepoint, self.refused, self.provider.hooks
        )
        lost = [way.hook for way in plan.missing(ways) if way.hook.required]
        if lost:
            names = ", ".join(" or ".join(h.functions) or h.raw_tracepoint for h in lost)
            raise ToolError(f"nothing to attach to as known: {names}")
        return ways

    def units(self, ways: Iterable[plan.Way], target: source.Target) -> list[source.Unit]:
        """The texts of its programs."""
        return units_of(self.provider, ways, target)

    def _arity(self, function: str) -> int | None:
        """As Btf.arity; None for a function whose arguments are not those the handlers know."""
        count = self.btf.arity(function)
        return count if self.provider.arities.get(function, count) == count else None


def units_of(
    provider: Provider, ways: Iterable[plan.Way], target: source.Target
) -> list[source.Unit]:
    """The texts of a provider's programs, hooked in these ways."""
    definitions = source.definitions(provider.structs, provider.bitfields)
    return source.compose(provider.hooks, ways, definitions, target, first_number(provider))


def first_number(provider: Provider) -> int:
    """The number of a provider's first hook."""
    return FIRST_NUMBER + NUMBERS * PROVIDERS.index(provider)


def is_loaded(name: str) -> bool:
    """Whether a module is there, with its types."""
    return (_SYS_MODULE / name).is_dir() and (VMLINUX.parent / name).exists()


def installed(root: Path = Path("/")) -> set[str] | None:
    """The modules this kernel came with; None where nobody says."""
    path = root / "lib/modules" / os.uname().release / "modules.dep"
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    files = (line.partition(":")[0].rpartition("/")[2] for line in lines)
    return {file.partition(".ko")[0].replace("-", "_") for file in files}


def open_module(provider: Provider, base: Btf) -> Module:
    """Read a loaded module's types.

    Raises ToolError where they are not as known.
    """
    btf = Btf(VMLINUX.parent / provider.module, base)
    values = layout.values(btf, provider.structs, provider.bitfields)
    return Module(provider, btf, values, provider.refused())


def find(base: Btf, wanted: Collection[str] = ()) -> tuple[list[Module], list[Standing]]:
    """The providers that are there, of those wanted (of all if none are named), and how the
    others stand."""
    there: list[Module] = []
    others: list[Standing] = []
    came_with = installed()
    for one in PROVIDERS:
        if wanted and one.module not in wanted:
            continue
        if not is_loaded(one.module):
            absent = came_with is not None and one.module not in came_with
            others.append(Standing(one.module, ABSENT if absent else WAITING))
            continue
        try:
            there.append(open_module(one, base))
        except ToolError as error:
            others.append(Standing(one.module, LEFT_OUT, f"{error}"))
    return there, others


def ways_json(module: Module, ways: Iterable[plan.Way]) -> list[dict[str, Any]]:
    """Entries of the plan in a capture's header."""
    return [{**way.to_json(), "module": module.provider.module} for way in ways]
