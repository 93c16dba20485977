# SPDX-License-Identifier: GPL-2.0-or-later
"""What the loader's child does: plan, compile, load, attach, and again without what is refused.

The core's hooks first, all or nothing; then each provider of level 2 by itself (modules.py): one
that does not work is left out. A provider whose module comes later joins the same maps.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import abilities, bpf, layout, linker, links, modules, plan, source
from dmabuf_tool.probes.compiler import compile_units
from dmabuf_tool.probes.objects import Compiled

_ATTEMPTS: Final = 4
"""How often the plan is made again after a refusal before giving up."""
_ATTEMPTS_OF_MODULE: Final = 12


@dataclass(slots=True)
class _Placed:
    """What is in the kernel: maps, programs and links by fd, and what it is for."""

    maps: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    twins: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    standings: list[modules.Standing] = field(default_factory=list)

    def make_maps(self, compiled: Compiled) -> None:
        """Make the maps that are not there yet."""
        for name, spec in compiled.maps.items():
            if name not in self.maps:
                self.maps[name] = bpf.create_map(spec)

    def message(self, known_maps: Collection[str] = ()) -> tuple[dict[str, Any], list[int]]:
        """What is handed over, without maps that the receiver has."""
        new = {name: fd for name, fd in self.maps.items() if name not in known_maps}
        message = {
            "ways": self.ways,
            "providers": [one.to_json() for one in self.standings],
            "maps": list(new),
            "programs": list(self.programs),
            "twins": self.twins,
        }
        return message, [*new.values(), *self.programs.values(), *self.links]


def attach(
    options: source.Options, hooks: tuple[plan.Hook, ...]
) -> tuple[dict[str, Any], list[int]]:
    """Compile, load and attach; returns what the parent must know, and maps, programs, links.

    Raises ToolError where the kernel refuses what no trace can do without.
    """
    btf = Btf()
    can = abilities.probe(btf)
    structs = layout.header(btf)
    there, others = modules.find(btf) if hooks is plan.HOOKS else ([], [])
    refused: set[tuple[str, str]] = set()
    for _ in range(_ATTEMPTS):
        ways = plan.resolve(can, btf.arity, btf.has_tracepoint, refused, hooks)
        lost = [way for way in plan.missing(ways) if way.hook.required]
        if lost:
            functions = ", ".join(way.hook.functions[0] for way in lost)
            raise ToolError(
                f"this kernel allows neither fentry nor kprobes on {functions};"
                " run 'dmabuf-tool doctor' for the reasons"
            )
        units = source.compose(ways, structs, options)
        placed = _Placed(ways=[way.to_json() for way in ways], standings=others)
        compiled = _compile(units, there, can, structs, options)
        placed.make_maps(compiled)
        try:
            placed.programs, placed.links = _attach(
                units, compiled, placed.maps, lambda name: (btf.function(name), 0)
            )
            placed.twins = _twins(units)
        except _Refused as error:
            refused.add((error.way.function, error.way.method))
            for fd in placed.maps.values():
                os.close(fd)
            continue
        for module in there:
            _join(placed, module, can, structs, options, compiled)
        message, fds = placed.message()
        message["has_dma_flags"] = "dma_flags" in btf.members("scatterlist")
        message["page_struct_size"] = btf.size_of("page") or 64
        return message, fds
    raise ToolError("the kernel keeps refusing probes; run 'dmabuf-tool doctor' for the reasons")


def join(
    options: source.Options, wanted: Collection[str], maps: dict[str, int]
) -> tuple[dict[str, Any], list[int]]:
    """Attach providers to a trace under way, whose maps these are; returns as attach().

    Raises ToolError where the kernel allows no BPF.
    """
    btf = Btf()
    can = abilities.probe(btf)
    structs = layout.header(btf)
    there, others = modules.find(btf, wanted)
    placed = _Placed(maps=dict(maps), standings=others)
    for module in there:
        _join(placed, module, can, structs, options)
    return placed.message(maps)


def _compile(
    units: list[source.Unit],
    there: list[modules.Module],
    can: plan.Abilities,
    structs: str,
    options: source.Options,
) -> Compiled:
    """Compile the core's units and, side by side with them, those of the modules."""
    theirs: list[source.Unit] = []
    for module in there:
        try:
            theirs += module.units(module.resolve(can), structs, options)
        except ToolError:
            continue  # _join() says why
    try:
        return compile_units([*units, *theirs])
    except ToolError:
        return compile_units(units)


def _join(
    placed: _Placed,
    module: modules.Module,
    can: plan.Abilities,
    structs: str,
    options: source.Options,
    compiled: Compiled | None = None,
) -> None:
    """Put a provider in place, or say why not. `compiled` may have its programs already."""
    name = module.provider.module
    try:
        fd = _types_of(name, can)
        try:
            for _ in range(_ATTEMPTS_OF_MODULE):
                ways = module.resolve(can)
                units = module.units(ways, structs, options)
                programs = {program for unit in units for program in unit.names}
                if compiled is None or not programs <= compiled.programs.keys():
                    compiled = compile_units(units)
                    placed.make_maps(compiled)
                try:
                    added, attached = _attach(
                        units,
                        compiled,
                        placed.maps,
                        lambda function: (module.btf.function(function), fd),
                    )
                except _Refused as error:
                    module.refused.add((error.way.function, error.way.method))
                    compiled = None
                    continue
                placed.programs |= added
                placed.twins |= _twins(units)
                placed.links += attached
                placed.ways += modules.ways_json(module, ways)
                placed.standings.append(modules.Standing(name, modules.ATTACHED))
                return
            raise ToolError("the kernel keeps refusing probes")
        finally:
            if fd:
                os.close(fd)
    except ToolError as error:
        placed.standings.append(modules.Standing(name, modules.LEFT_OUT, f"{error}"))


def _types_of(name: str, can: plan.Abilities) -> int:
    """The fd of a module's types, for fentry; 0 where it is not needed."""
    return bpf.module_types(name) if can.fentry else 0


_Types = Callable[[str], tuple[int, int]]
"""A function's BTF id, and the fd of the module's BTF that has it, 0 for the kernel's."""


class _Refused(Exception):
    def __init__(self, way: plan.Way) -> None:
        super().__init__(way.function)
        self.way = way


def _attach(
    units: list[source.Unit], compiled: Compiled, maps: dict[str, int], types: _Types
) -> tuple[dict[str, int], list[int]]:
    """Load and attach every program.

    Raises _Refused for the first one the kernel turns down, with nothing left attached.
    """
    # Returns before entries: an entry without its return would leave a frame behind.
    every = sorted(
        (program for unit in units for program in unit.programs), key=lambda p: not p.at_return
    )
    jobs = [
        (program, role)
        for program in every
        for role in (_SECOND_AND_FIRST if program.way.twins else (_ALONE,))
    ]
    programs: dict[str, int] = {}
    attached: list[int] = []
    try:
        programs = _load(jobs, compiled, maps, types)
        for program, role in jobs:
            with _refusing(program):
                attached.append(_attach_one(program, programs[_name(program, role)]))
    except _Refused:
        for fd in (*attached, *programs.values()):
            os.close(fd)
        raise
    return programs, attached


_Job = tuple[source.Program, int]
"""A program to load, and its role."""


def _load(
    jobs: list[_Job], compiled: Compiled, maps: dict[str, int], types: _Types
) -> dict[str, int]:
    """Load programs, on all processors: the verifier works without a lock for who has CAP_BPF.

    Returns their fds by name, in the order of the jobs. Raises _Refused for the first one the
    kernel turns down, with nothing left loaded.
    """
    names = {program.name for program, _ in jobs}
    whole = {name: linker.link(compiled.programs[name], compiled.programs) for name in names}
    loaded: dict[_Job, int] = {}
    refused: list[_Refused] = []

    def size(job: _Job) -> int:
        return len(whole[job[0].name].instructions)

    waiting = sorted(jobs, key=size)  # the longest are taken first

    def work() -> None:
        while waiting and not refused:
            try:
                program, role = waiting.pop()
            except IndexError:
                return  # another thread took the last
            code = whole[program.name].relocated(maps, role)
            try:
                with _refusing(program):
                    loaded[program, role] = _load_one(program, code, types)
            except _Refused as error:
                refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        for fd in loaded.values():
            os.close(fd)
        raise refused[0]
    return {_name(*job): loaded[job] for job in jobs}


@contextlib.contextmanager
def _refusing(program: source.Program) -> Iterator[None]:
    """Turn the kernel's no into _Refused."""
    try:
        yield
    except bpf.LoadError as error:
        if os.environ.get("DMABUF_TOOL_DEBUG"):
            print(f"{program.name} ({program.way.method}): {error}", file=sys.stderr)
        raise _Refused(program.way) from error


_ALONE: Final = 0
_SECOND_AND_FIRST: Final = (2, 1)
"""Roles of bpf/core.bpf.h. A trampoline runs first what was attached last: it is put at the head
of the list (bpf_trampoline_add_prog(), kernel/bpf/trampoline.c, Linux 5.5 to 7.3)."""


def _name(program: source.Program, role: int = _SECOND_AND_FIRST[0]) -> str:
    return f"{program.name}~" if role == _SECOND_AND_FIRST[0] else program.name


def _twins(units: list[source.Unit]) -> dict[str, tuple[str, int]]:
    """By the first's name: the second's, and their number."""
    return {
        program.name: (_name(program), program.number)
        for unit in units
        for program in unit.programs
        if program.way.twins
    }


def _load_one(program: source.Program, code: bytes, types: _Types) -> int:
    method = program.way.method
    if method == "fentry":
        kind = bpf.TRACE_FEXIT if program.at_return else bpf.TRACE_FENTRY
        return bpf.load_program(
            bpf.PROG_TRACING, program.name, code, kind, *types(program.way.function)
        )
    if method == "raw_tracepoint":
        return bpf.load_program(bpf.PROG_RAW_TRACEPOINT, program.name, code)
    attach_type = bpf.TRACE_KPROBE_MULTI if method == "kprobe_multi" else 0
    return bpf.load_program(bpf.PROG_KPROBE, program.name, code, attach_type)


def _attach_one(program: source.Program, fd: int) -> int:
    method, function = program.way.method, program.way.function
    if method == "fentry":
        return links.attach_tracing(fd)
    if method == "raw_tracepoint":
        return links.attach_raw_tracepoint(fd, function)
    if method == "kprobe_multi":
        return links.attach_kprobe_multi(fd, function, program.at_return)
    return links.attach_kprobe(fd, function, program.at_return)
