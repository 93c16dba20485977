# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile the probes when the tool is installed, so that no start has to.

`python3 -m dmabuf_tool.probes.prepare [--machine aarch64] DIRECTORY` writes what objects.py looks
for in bpf/objects: the texts of all hooks and of all providers of level 2, by fentry and by
kprobes. A kernel that allows neither for everything has a text of its own, compiled where it is
met. Needs what a first start needs: bcc, and root, because bcc makes its maps as it compiles.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.probes import iterator, modules, objects, plan, source
from dmabuf_tool.probes.providers import PROVIDERS
from dmabuf_tool.probes.workshop import Workshop

_METHODS: Final = ("fentry", "kprobe")
"""One of each kind: kprobe_multi has the texts of kprobe."""


def units(target: source.Target) -> Iterator[source.Unit]:
    """The texts of kernels that are hooked by one method throughout."""
    for method in _METHODS:
        can = plan.Abilities(method == "fentry", False, kprobe=True, raw_tracepoint=True)
        ways = plan.resolve(can, _known, _has)
        yield from source.compose(plan.HOOKS, ways, source.definitions({}), target)
        for provider in PROVIDERS:
            ways = plan.resolve(can, _known, _has, provider.refused(), provider.hooks)
            yield from modules.units_of(provider, ways, target)
    yield iterator.unit(target)


def _known(function: str) -> int:
    """Every function is there; with how many arguments makes no text another."""
    return 0


def _has(tracepoint: str) -> bool:
    return True


def prepare(place: Path, target: source.Target) -> int:
    """Compile into a directory; returns the number of texts. Raises ToolError or OSError."""
    place.mkdir(parents=True, exist_ok=True)
    # Once: what hooks tracepoints alone has the same text for both methods.
    wanted = list({objects.key_of(unit): unit for unit in units(target)}.values())
    at_once = os.cpu_count() or 1
    with Workshop() as workshop:
        for first in range(0, len(wanted), at_once):
            some = wanted[first : first + at_once]
            for unit, compiled in zip(some, workshop.make(some), strict=True):
                objects.write(place, unit, compiled, mode=0o644)
    return len(wanted)


def main() -> None:
    """Compile into the directory that is named."""
    parser = argparse.ArgumentParser(prog="dmabuf_tool.probes.prepare", description=__doc__)
    parser.add_argument("--machine", default=os.uname().machine, help="as uname -m says it")
    parser.add_argument("--page-size", type=int, default=os.sysconf("SC_PAGE_SIZE"))
    parser.add_argument("directory", type=Path)
    asked = parser.parse_args()
    try:
        count = prepare(asked.directory, source.Target(asked.machine, asked.page_size))
    except (ToolError, OSError) as error:
        sys.exit(f"dmabuf-tool: the probes are not compiled: {error}")
    print(f"{count} texts compiled in {asked.directory}")


if __name__ == "__main__":
    main()
