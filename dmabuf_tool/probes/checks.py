# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks of `doctor` that only trying answers: BPF, fentry, kprobes, and the resolved plan.

Configuration, lockdown, security modules and container limits each may refuse a probe. A trial
attaches a program of two instructions to one function and removes it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from dmabuf_tool.errors import ToolError
from dmabuf_tool.kernel import config, preemption, symbols
from dmabuf_tool.kernel.btf import Btf
from dmabuf_tool.kernel.checks import DEGRADED, MISSING, OK, Check
from dmabuf_tool.probes import abilities, modules, objects, plan, source
from dmabuf_tool.probes.providers import PROVIDERS

_METHODS: Final = ("fentry", "kprobe_multi", "kprobe")
_SEE: Final = "see privileges and lockdown"


def run() -> list[Check]:
    """Try each kind of program, then resolve the plan with what worked."""
    try:
        btf = Btf()
    except ToolError as error:
        return [Check("plan", "probe plan", MISSING, str(error), needed="types")]
    try:
        tracepoints = _try(
            *("bpf", "BPF programs", abilities.try_raw_tracepoint, "raw tracepoints work"),
            lambda: _SEE,
        )
        fentry = _try(
            *("fentry", "fentry", lambda: abilities.try_fentry(btf), "works"),
            *(partial(_option, "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"), "attach"),
        )
        multi = _try(
            *("kprobe-multi", "kprobe_multi", lambda: abilities.try_kprobe_multi(btf), "works"),
            *(partial(_option, "CONFIG_FPROBE"), "attach"),
        )
        kprobe = _try(
            *("kprobes", "kprobes", lambda: abilities.try_kprobe(btf), "work"),
            *(partial(_option, "CONFIG_KPROBE_EVENTS"), "attach"),
        )
        can = plan.Abilities(
            fentry=fentry.status == OK,
            kprobe_multi=multi.status == OK,
            kprobe=kprobe.status == OK,
            raw_tracepoint=tracepoints.status == OK,
            preemptible=preemption.preemptible(),
        )
        ways = plan.resolve(can, btf.arity, btf.has_tracepoint, _without_symbol())
        providers = _providers(btf, can)
    finally:
        btf.close()
    return [
        *(_compiled(ways), tracepoints, fentry, multi, kprobe),
        *(_hook(way, bool(can.methods())) for way in ways),
        *providers,
    ]


def _compiled(ways: list[plan.Way]) -> Check:
    """Whether a trace would have to compile; it can do without bcc where it has not to."""
    what = "compiled probes"
    units = source.compose(plan.HOOKS, ways, source.definitions({}), source.Target.here())
    if all(objects.load(unit) is not None for unit in units):
        return Check("compiled", what, OK, "for what this kernel allows", needed="bcc")
    return Check(
        *("compiled", what, DEGRADED, "a trace compiles them when it begins"),
        "install the tool as root, with bcc there, or trace once",
    )


def _providers(btf: Btf, can: plan.Abilities) -> list[Check]:
    """How each provider of level 2 stands: what its hooks would be, what it waits for, or why
    it is left out."""
    there, others = modules.find(btf)
    found = {one.module: (one.state, one.why) for one in others}
    for module in there:
        name = module.provider.module
        try:
            ways = module.resolve(can)
        except ToolError as error:
            found[name] = (modules.LEFT_OUT, f"{error}")
        else:
            methods = sorted({way.method for way in ways})
            found[name] = (modules.ATTACHED, f"{len(ways)} hooks by {', '.join(methods)}")
        module.btf.close()
    return [_provider(one.module, *found[one.module]) for one in PROVIDERS]


def _provider(name: str, state: str, detail: str) -> Check:
    """Make the check of one provider; to have none loses level 2 of its GPUs, nothing else."""
    what = f"level 2 of {name}"
    if state == modules.WAITING:
        return Check(f"level2-{name}", what, OK, f"waits for module {name}")
    if state == modules.ABSENT:
        return Check(f"level2-{name}", what, OK, f"this kernel came without module {name}")
    if state == modules.ATTACHED:
        return Check(f"level2-{name}", what, OK, detail)
    return Check(f"level2-{name}", what, DEGRADED, f"not seen: {detail}")


def _hook(way: plan.Way, attaches: bool) -> Check:
    """Make the check of one hook: by what it is attached, or what is lost without it."""
    hook = way.hook
    what = f"probe {hook.name}"
    # Where nothing attaches at all the reason has been given already.
    needed = f"nothing to attach probe {hook.name} to" if hook.required and attaches else ""
    if way.method != "missing":
        return Check(f"probe-{hook.name}", what, OK, f"{way.method} {way.function}", needed=needed)
    names = " or ".join([*hook.functions, hook.raw_tracepoint]).removesuffix(" or ")
    fix = f"boot a kernel that has {names}" if attaches else "see fentry and kprobes above"
    return Check(f"probe-{hook.name}", what, MISSING, f"lost: {hook.lost}", fix, needed)


def _without_symbol() -> set[tuple[str, str]]:
    """Find functions that BTF may list and the kernel has not: inlined, or only as .isra."""
    functions = {name for hook in plan.HOOKS for name in hook.functions}
    try:
        there = symbols.find(functions)
    except OSError:
        return set()
    return {(name, way) for name in functions - there.keys() for way in _METHODS}


def _try(
    id_: str,
    what: str,
    trial: Callable[[], None],
    detail: str,
    fix: Callable[[], str],
    needed: str = "",
) -> Check:
    """Make a check of something that works or raises ToolError; the fix is looked for then."""
    try:
        trial()
    except ToolError as error:
        return Check(id_, what, MISSING, str(error), fix(), needed)
    return Check(id_, what, OK, detail, needed=needed)


def _option(option: str, root: Path = Path("/")) -> str:
    """Say which kernel option to look for, as far as the kernel's configuration tells."""
    options = config.read(root)
    if options is None:
        return f"boot a kernel with {option}=y"
    if options.get(option, "n") == "n":
        return f"boot a kernel with {option}=y, which this one lacks"
    return f"this kernel has {option}=y but refuses: {_SEE}"
