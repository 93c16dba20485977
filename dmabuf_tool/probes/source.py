# SPDX-License-Identifier: GPL-2.0-or-later
"""C texts for bcc: kernel structs, the contract, the subjects, and the programs.

bcc rewrites map accesses only in its main file, so the files of bpf/ are put into one text, with
`#line` so that messages name the right place. Around the handlers of each hook, programs are
written for the method the plan chose. Subjects are grouped into units that are compiled side by
side; maps of one name are one map.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dmabuf_tool.probes import layout, marks, subprograms
from dmabuf_tool.probes.layout import SCATTERLIST_SIZE, Definitions
from dmabuf_tool.probes.plan import Hook, Method, Way
from dmabuf_tool.probes.texts import bpf_file

KPROBES: Final[tuple[Method, ...]] = ("kprobe", "kprobe_multi")
"""Methods whose programs get registers and, at return, no arguments."""

_TRACEPOINT_ARGUMENTS: Final = 3
"""As many of a raw tracepoint's are looked at. Some have fewer: the kernel does not attach a
program that reads more than there are."""
PROGRAMS: Final = 512
"""As many programs at most: two for each of 256 ways."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks of the programs. Ring sizes are in bytes, a power of two and whole pages.

    Nothing of it is in the texts: they are filled in (marks.py), and rings made, when a trace
    begins.
    """

    event_ring: int = 2 << 20
    chunk_ring: int = 2 << 20
    max_segments: int = 4096
    stacks: bool = False

    def facts(self, page_size: int) -> dict[str, int]:
        """What programs are told."""
        block = page_size // SCATTERLIST_SIZE
        return {
            "MAX_SEGMENTS": self.max_segments,
            "MAX_CHUNKS": (self.max_segments + block - 2) // (block - 1),
            "STACKS_EVERYWHERE": int(self.stacks),
        }

    def sizes(self) -> dict[str, int]:
        """The rings by name."""
        return {"events": self.event_ring, "chunks": self.chunk_ring}


KRETPROBES: Final = "KRETPROBES"
"""Whether some returns are seen by kretprobes, of which any may go unseen and uncounted."""
_FACTS: Final = (
    marks.ROLE,
    KRETPROBES,
    layout.LOOP,
    *Options().facts(4096),
    *(name for _, name in layout.FLAGS),
)


def definitions(structs: layout.Structs, bits: layout.BitFields = ()) -> layout.Definitions:
    """What a text begins with: the core's structs, and more of a provider's."""
    return layout.define(layout.STRUCTS | structs, (*layout.BITFIELDS, *bits), _FACTS)


@dataclass(frozen=True, slots=True)
class Target:
    """What a text is compiled for, beside BPF. Page size in bytes."""

    machine: str
    page_size: int

    @classmethod
    def here(cls) -> Target:
        """This machine."""
        return cls(os.uname().machine, os.sysconf("SC_PAGE_SIZE"))

    def flags(self) -> tuple[str, ...]:
        """For the compiler: macros that bcc's own text looks at."""
        name = _ARCHITECTURES.get(self.machine, self.machine)
        return (f"-DPAGE_SIZE={self.page_size}", f"-D__TARGET_ARCH_{name}")

    def defines(self) -> dict[str, int]:
        """As C macros. A scatterlist's blocks are pages: SG_MAX_SINGLE_ALLOC,
        include/linux/scatterlist.h."""
        return {
            "SG_BLOCK": self.page_size // SCATTERLIST_SIZE,
            "CHUNK_BYTES": self.page_size,
            "SG_CHAIN": 1,
            "BPF_RB_NO_WAKEUP": 1,
            "PROGRAMS": PROGRAMS,
        }


_ARCHITECTURES: Final = {"x86_64": "x86", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Program:
    """A program in the text: the function bcc compiled, and what it is attached to."""

    name: str
    way: Way
    at_return: bool
    number: int = 0
    """Unique over all units, below PROGRAMS."""

    def arguments(self) -> dict[str, int]:
        """Where its context has the call's arguments (marks.py)."""
        if self.way.method == "raw_tracepoint":
            return marks.arguments(_TRACEPOINT_ARGUMENTS, returns=False)
        return marks.arguments(self.way.arity, returns=self.at_return and self.way.hook.returns)


_FENTRY = """
int {name}(u64 *ctx)
{{
	struct call c = {{ .ctx = ctx, .program = {number}, .tid = bpf_get_current_pid_tgid() }};

	c.arg[0] = ARGUMENT(ctx, 0);
	c.arg[1] = ARGUMENT(ctx, 1);
	c.arg[2] = ARGUMENT(ctx, 2);
	c.arg[3] = ARGUMENT(ctx, 3);
	c.arg[4] = ARGUMENT(ctx, 4);
	c.ret = RETURNED(ctx);
	return {told}{handler}(&c);
}}
"""

_KPROBE_ENTRY = """
int {name}(struct pt_regs *ctx)
{{
	struct call c = {{ .ctx = ctx, .tid = bpf_get_current_pid_tgid() }};

	c.arg[0] = PT_REGS_PARM1(ctx);
	c.arg[1] = PT_REGS_PARM2(ctx);
	c.arg[2] = PT_REGS_PARM3(ctx);
	c.arg[3] = PT_REGS_PARM4(ctx);
	c.arg[4] = PT_REGS_PARM5(ctx);
{body}
}}
"""

_KPROBE_RETURN = """
int {name}(struct pt_regs *ctx)
{{
	struct call c = {{ .ctx = ctx, .tid = bpf_get_current_pid_tgid() }};

	if (!restore_call({number}, &c))
		return 0;
	c.ret = PT_REGS_RC(ctx);
	return {handler}(&c);
}}
"""


def _programs_of(number: int, way: Way) -> list[tuple[Program, str]]:
    """The programs of a hook. Those by fentry ask whether they are the second of two (is_told(),
    where their handlers do not know) whether or not they will be: the loader says so."""
    hook = way.hook
    result = []
    kept = way.method in KPROBES and hook.exit  # a kretprobe does not know the arguments
    for at_return, wanted in ((False, hook.entry or kept), (True, hook.exit)):
        if not wanted:
            continue
        end = "exit" if at_return else "entry"
        name, handler = f"{hook.name}_{end}", f"on_{hook.name}_{end}"
        program = Program(name, way, at_return, 2 * number + at_return)
        if way.method not in KPROBES:
            asks = way.method == "fentry" and not hook.knows
            told = "is_told(&c) ? 0 : " if asks else ""
            text = _FENTRY.format(name=name, handler=handler, number=program.number, told=told)
        elif at_return:
            text = _KPROBE_RETURN.format(name=name, handler=handler, number=number)
        else:
            calls = [f"\tsave_call({number}, &c);"] if kept else []
            calls.append(f"\treturn {handler}(&c);" if hook.entry else "\treturn 0;")
            text = _KPROBE_ENTRY.format(name=name, body="\n".join(calls))
        result.append((program, text))
    return result


SUBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "buffer": ("buffer.bpf.c",),
    "attach": ("attachment.bpf.h", "table.bpf.h", "attach.bpf.c"),
    "map": ("attachment.bpf.h", "table.bpf.h", "map.bpf.c"),
    "msm": ("table.bpf.h", "level2.bpf.h", "msm.bpf.c"),
    "iommu": ("iommu.bpf.c",),
    "domain": ("domain.bpf.c",),
}
"""The files of a subject, beyond those that every subject is built on; any other subject is a
level-2 provider's."""

_COMMON: Final = ("members.bpf.h", "core.bpf.h", "objects.bpf.h", "frames.bpf.h")

UNITS: Final = (("map", "iommu"), ("buffer", "attach", "domain"))
"""Subjects compiled together: two texts, for two processors. The second's hooks are rare ones, and
may all be by kprobes: then it knows no types of arguments (TYPED_ARGUMENTS)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One text for the compiler and the programs in it."""

    text: str
    names: tuple[str, ...]
    """The C functions that are programs, and the bodies of subprograms."""
    flags: tuple[str, ...] = ()
    """As Target.flags()."""
    marks: dict[int, str] = field(default_factory=dict)
    """As layout.Definitions."""
    programs: tuple[Program, ...] = ()
    """What the probe plan knows of them, those this kernel has."""


def compose(
    hooks: Iterable[Hook],
    ways: Iterable[Way],
    definitions: Definitions,
    target: Target,
    first: int = 0,
) -> list[Unit]:
    """The texts for these hooks; subjects that no unit names are a unit each.

    A text is the same for all kernels that are hooked by the same methods: hooks that are missing
    have their programs in it, too. `first`: the number of the first hook, of which all together
    have 256 (kprobe.bpf.h).
    """
    by_hook = {way.hook: way for way in ways if way.method != "missing"}
    numbers = {hook: number for number, hook in enumerate(hooks, first)}
    subjects = dict.fromkeys(hook.subject for hook in numbers)
    grouped = {subject for unit in UNITS for subject in unit}
    units = [*UNITS, *((subject,) for subject in subjects if subject not in grouped)]
    head = [f"#define {name} {value}\n" for name, value in target.defines().items()]
    head += [subprograms.defines(subjects), definitions.text]
    return [
        _unit(
            {hook: number for hook, number in numbers.items() if hook.subject in unit},
            by_hook,
            head,
            target.flags(),
            definitions.names,
        )
        for unit in units
        if not subjects.keys().isdisjoint(unit)
    ]


def _unit(
    hooks: dict[Hook, int],
    by_hook: dict[Hook, Way],
    head: list[str],
    flags: tuple[str, ...],
    names: dict[int, str],
) -> Unit:
    """One text. `hooks` have numbers that are unique over all units: they key saved calls."""
    methods = {by_hook[hook].method for hook in hooks if hook in by_hook}
    of_missing: Method = next((m for m in KPROBES if m in methods), "fentry")
    parts = list(head)
    if methods.isdisjoint(KPROBES):
        parts.append("#define TYPED_ARGUMENTS\n")
    files = ["events.h", *_COMMON]
    if not methods.isdisjoint(KPROBES):
        files.append("kprobe.bpf.h")
    for subject in dict.fromkeys(hook.subject for hook in hooks):
        files += SUBJECTS.get(subject, ("level2.bpf.h", f"{subject}.bpf.c"))
    for name in dict.fromkeys(files):
        parts.append(f'#line 1 "{name}"\n{bpf_file(name)}')
    written, programs = [], []
    for hook, number in hooks.items():
        method = of_missing if hook.functions else "raw_tracepoint"
        for program, text in _programs_of(number, by_hook.get(hook, Way(hook, method))):
            written.append(program.name)
            parts.append(text)
            if hook in by_hook:
                programs.append(program)
    bodies = subprograms.bodies({hook.subject for hook in hooks})
    parts += bodies.values()
    return Unit("\n".join(parts), (*written, *bodies), flags, names, tuple(programs))
