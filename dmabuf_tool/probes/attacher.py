# SPDX-License-Identifier: GPL-2.0-or-later
"""What the loader's child does: plan, compile, load, attach, and again without what is refused."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.probes import abilities, bpf, layout, plan, providers, source
from dmabuf_tool.probes.compiler import compile_units
from dmabuf_tool.probes.objects import Compiled

MAPS: Final = ("events", "chunks", "stats", "stacks")
"""The maps of bpf/ that user space reads."""

_ATTEMPTS: Final = 4
"""How often the plan is made again after a refusal before giving up."""


def attach(
    options: source.Options, hooks: tuple[plan.Hook, ...]
) -> tuple[dict[str, Any], list[int]]:
    """Compile, load and attach; returns what the parent must know, and maps, programs, links.

    Raises ToolError where the kernel refuses what no trace can do without.
    """
    btf = Btf()
    can = abilities.probe(btf)
    structs = layout.header(btf)
    modules = providers.Modules(btf)
    hooks = (*hooks, *modules.hooks) if hooks is plan.HOOKS else hooks
    refused = modules.refused
    for _ in range(_ATTEMPTS):
        ways = plan.resolve(can, modules.arity, btf.has_tracepoint, refused, hooks)
        lost = [way for way in plan.missing(ways) if way.hook.required]
        if lost:
            functions = ", ".join(way.hook.functions[0] for way in lost)
            raise ToolError(
                f"this kernel allows neither fentry nor kprobes on {functions};"
                " run 'dmabuf-tool doctor' for the reasons"
            )
        units = source.compose(ways, structs, options, modules.structs)
        compiled = compile_units(units)
        maps = {name: bpf.create_map(spec) for name, spec in compiled.maps.items()}
        try:
            programs, links = _attach(units, compiled, maps, btf)
        except _Refused as error:
            refused.add((error.way.function, error.way.method))
            for fd in maps.values():
                os.close(fd)
            continue
        shared = [name for name in MAPS if name in maps]
        message = {
            "ways": [way.to_json() for way in ways],
            "maps": shared,
            "programs": list(programs),
            "has_dma_flags": "dma_flags" in btf.members("scatterlist"),
            "page_struct_size": btf.size_of("page") or 64,
        }
        return message, [*(maps[name] for name in shared), *programs.values(), *links]
    raise ToolError("the kernel keeps refusing probes; run 'dmabuf-tool doctor' for the reasons")


class _Refused(Exception):
    def __init__(self, way: plan.Way) -> None:
        super().__init__(way.function)
        self.way = way


def _attach(
    units: list[source.Unit], compiled: Compiled, maps: dict[str, int], btf: Btf
) -> tuple[dict[str, int], list[int]]:
    """Load and attach every program.

    Raises _Refused for the first one the kernel turns down, with nothing left attached.
    """
    programs: dict[str, int] = {}
    links: list[int] = []
    every = [program for unit in units for program in unit.programs]
    # Returns before entries: an entry without its return would leave a frame behind.
    for program in sorted(every, key=lambda p: not p.at_return):
        try:
            code = compiled.programs[program.name].relocated(maps)
            fd = _load_one(program, code, btf)
            programs[program.name] = fd
            links.append(_attach_one(program, fd))
        except bpf.LoadError as error:
            if os.environ.get("DMABUF_TOOL_DEBUG"):
                print(f"{program.name} ({program.way.method}): {error}", file=sys.stderr)
            for open_fd in (*links, *programs.values()):
                os.close(open_fd)
            raise _Refused(program.way) from error
    return programs, links


def _load_one(program: source.Program, code: bytes, btf: Btf) -> int:
    method = program.way.method
    if method == "fentry":
        kind = bpf.TRACE_FEXIT if program.at_return else bpf.TRACE_FENTRY
        btf_id = btf.function(program.way.function)
        return bpf.load_program(bpf.PROG_TRACING, program.name, code, kind, btf_id)
    if method == "raw_tracepoint":
        return bpf.load_program(bpf.PROG_RAW_TRACEPOINT, program.name, code)
    attach_type = bpf.TRACE_KPROBE_MULTI if method == "kprobe_multi" else 0
    return bpf.load_program(bpf.PROG_KPROBE, program.name, code, attach_type)


def _attach_one(program: source.Program, fd: int) -> int:
    method, function = program.way.method, program.way.function
    if method == "fentry":
        return bpf.attach_tracing(fd)
    if method == "raw_tracepoint":
        return bpf.attach_raw_tracepoint(fd, function)
    if method == "kprobe_multi":
        return bpf.attach_kprobe_multi(fd, function, program.at_return)
    return bpf.attach_kprobe(fd, function, program.at_return)
