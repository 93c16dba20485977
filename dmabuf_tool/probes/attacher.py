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
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import abilities, bpf, layout, linker, links, marks, modules, plan, source
from dmabuf_tool.probes.objects import Compiled
from dmabuf_tool.probes.workshop import Workshop

_ATTEMPTS: Final = 12
"""How often the plan is made again after a refusal before giving up."""


@dataclass(slots=True)
class _Means:
    """What programs are made with."""

    can: plan.Abilities
    values: dict[str, int]
    """What stands at the marks of the core's texts (marks.py)."""
    options: source.Options
    target: source.Target
    workshop: Workshop

    @classmethod
    def find(cls, btf: Btf, options: source.Options, workshop: Workshop) -> _Means:
        """Look at the running kernel. Raises ToolError where it allows no BPF."""
        target = source.Target.here()
        values = layout.kernel_values(btf) | options.facts(target.page_size)
        values[source.KRETPROBES] = 0
        return cls(abilities.probe(btf, all_methods=False), values, options, target, workshop)


@dataclass(slots=True)
class _Placed:
    """What is in the kernel: maps, programs and links by fd, and what it is for."""

    maps: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    twins: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    standings: list[modules.Standing] = field(default_factory=list)

    def make_maps(self, compiled: Compiled, options: source.Options) -> None:
        """Make the maps that are not there yet."""
        sizes = options.sizes()
        for name, spec in compiled.maps.items():
            if name not in self.maps:
                size = sizes.get(name, spec.max_entries)
                self.maps[name] = bpf.create_map(replace(spec, max_entries=size))

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
    options: source.Options, hooks: tuple[plan.Hook, ...], workshop: Workshop
) -> tuple[dict[str, Any], list[int]]:
    """Compile, load and attach; returns what the parent must know, and maps, programs, links.

    Raises ToolError where the kernel refuses what no trace can do without.
    """
    btf = Btf()
    means = _Means.find(btf, options, workshop)
    there, others = modules.find(btf) if hooks is plan.HOOKS else ([], [])
    refused: set[tuple[str, str]] = set()
    for _ in range(_ATTEMPTS):
        ways = plan.resolve(means.can, btf.arity, btf.has_tracepoint, refused, hooks)
        lost = [way for way in plan.missing(ways) if way.hook.required]
        if lost:
            functions = ", ".join(way.hook.functions[0] for way in lost)
            raise ToolError(
                f"this kernel allows neither fentry nor kprobes on {functions};"
                " run 'dmabuf-tool doctor' for the reasons"
            )
        units = source.compose(hooks, ways, source.definitions({}), means.target)
        means.values[source.KRETPROBES] = int(any(way.method == "kprobe" for way in ways))
        placed = _Placed(ways=[way.to_json() for way in ways], standings=others)
        compiled = _compile(units, there, means)
        placed.make_maps(compiled, options)
        try:
            placed.programs, placed.links = _attach(
                units,
                compiled,
                placed.maps,
                means.values,
                lambda name: (btf.function(name), 0),
            )
            placed.twins = _twins(units)
        except _Refused as error:
            refused.add((error.way.function, error.way.method))
            for fd in placed.maps.values():
                os.close(fd)
            continue
        for module in there:
            _join(placed, module, means, compiled)
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
    there, others = modules.find(btf, wanted)
    placed = _Placed(maps=dict(maps), standings=others)
    with Workshop() as workshop:
        means = _Means.find(btf, options, workshop)
        for module in there:
            _join(placed, module, means)
    return placed.message(maps)


def _compile(
    units: list[source.Unit],
    there: list[modules.Module],
    means: _Means,
) -> Compiled:
    """Compile the core's units and, side by side with them, those of the modules."""
    theirs: list[source.Unit] = []
    for module in there:
        try:
            theirs += module.units(module.resolve(means.can), means.target)
        except ToolError:
            continue  # _join() says why
    try:
        return means.workshop.compile([*units, *theirs])
    except ToolError:
        return means.workshop.compile(units)


def _join(
    placed: _Placed,
    module: modules.Module,
    means: _Means,
    compiled: Compiled | None = None,
) -> None:
    """Put a provider in place, or say why not. `compiled` may have its programs already."""
    name = module.provider.module
    try:
        fd = _types_of(name, means.can)
        try:
            for _ in range(_ATTEMPTS):
                ways = module.resolve(means.can)
                units = module.units(ways, means.target)
                programs = {program for unit in units for program in unit.names}
                if compiled is None or not programs <= compiled.programs.keys():
                    compiled = means.workshop.compile(units)
                    placed.make_maps(compiled, means.options)
                try:
                    added, attached = _attach(
                        units,
                        compiled,
                        placed.maps,
                        means.values | module.values,
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
    units: list[source.Unit],
    compiled: Compiled,
    maps: dict[str, int],
    values: dict[str, int],
    types: _Types,
) -> tuple[dict[str, int], list[int]]:
    """Load and attach every program, each as soon as it is loaded.

    Raises _Refused for the first one the kernel turns down, with nothing left attached.
    """
    every = [program for unit in units for program in unit.programs]
    loop = bool(values[layout.LOOP])
    whole = {
        one.name: linker.link(compiled.programs[one.name], compiled.programs, addresses=loop)
        for one in every
    }
    # Returns before entries: an entry without its return would leave a frame behind. The longest
    # first: they take the verifier's time.
    every.sort(key=lambda one: (not one.at_return, -len(whole[one.name].instructions)))
    jobs = [
        (program, role)
        for program in every
        for role in (_SECOND_AND_FIRST if program.way.twins else (_ALONE,))
    ]
    programs: dict[str, int] = {}
    attached: list[int] = []

    def load(job: _Job) -> int:
        program, role = job
        filled = values | {marks.ROLE: role} | program.arguments()
        code = whole[program.name]
        return _load_one(program, code.relocated(maps, filled), code.functions, types)

    try:
        with contextlib.closing(_in_order(jobs, load)) as loaded:
            for (program, role), fd in loaded:
                programs[_name(program, role)] = fd
                with _refusing(program):
                    attached.append(_attach_one(program, fd))
    except _Refused:
        for fd in (*attached, *programs.values()):
            os.close(fd)
        raise
    return programs, attached


_Job = tuple[source.Program, int]
"""A program to load, and its role."""


def _in_order(
    jobs: list[_Job], load: Callable[[_Job], int]
) -> Generator[tuple[_Job, int], None, None]:
    """Load programs on all processors: the verifier works without a lock for who has CAP_BPF.

    Yields their fds in the order of the jobs. Raises _Refused for the first one the kernel turns
    down; what was loaded and not yielded is freed.
    """
    waiting = deque(jobs)
    done: SimpleQueue[tuple[_Job, int | BaseException]] = SimpleQueue()

    def work() -> None:
        while waiting:
            try:
                job = waiting.popleft()
            except IndexError:
                return  # another thread took the last
            try:
                with _refusing(job[0]):
                    done.put((job, load(job)))
            except BaseException as error:
                done.put((job, error))

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    loaded: dict[_Job, int] = {}
    try:
        for job in jobs:
            while job not in loaded:
                which, result = done.get()
                if isinstance(result, BaseException):
                    raise result
                loaded[which] = result
            yield job, loaded.pop(job)
    finally:
        waiting.clear()
        for thread in threads:
            thread.join()
        while not done.empty():
            which, result = done.get()
            if isinstance(result, int):
                loaded[which] = result
        for fd in loaded.values():
            os.close(fd)


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


def _load_one(
    program: source.Program, code: bytes, functions: Mapping[int, str], types: _Types
) -> int:
    method = program.way.method
    if method == "fentry":
        kind = bpf.TRACE_FEXIT if program.at_return else bpf.TRACE_FENTRY
        hooked = (kind, *types(program.way.function))
        return bpf.load_program(bpf.PROG_TRACING, program.name, code, functions, *hooked)
    if method == "raw_tracepoint":
        return bpf.load_program(bpf.PROG_RAW_TRACEPOINT, program.name, code, functions)
    attach_type = bpf.TRACE_KPROBE_MULTI if method == "kprobe_multi" else 0
    return bpf.load_program(bpf.PROG_KPROBE, program.name, code, functions, attach_type)


def _attach_one(program: source.Program, fd: int) -> int:
    method, function = program.way.method, program.way.function
    if method == "fentry":
        return links.attach_tracing(fd)
    if method == "raw_tracepoint":
        return links.attach_raw_tracepoint(fd, function)
    if method == "kprobe_multi":
        return links.attach_kprobe_multi(fd, function, program.at_return)
    return links.attach_kprobe(fd, function, program.at_return)
