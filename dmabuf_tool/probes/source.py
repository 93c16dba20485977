# SPDX-License-Identifier: GPL-2.0-or-later
"""C texts for bcc: options, kernel structs, the contract, the subjects, and the programs.

bcc rewrites map accesses only in its main file, so the files of bpf/ are put into one text, with
`#line` so that messages name the right place. Around the handlers of each hook, programs are
written for the method the plan chose. Subjects are grouped into units that are compiled side by
side; maps of one name are one map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from dmabuf_tool.probes import subprograms
from dmabuf_tool.probes.plan import Way
from dmabuf_tool.probes.texts import bpf_file

KPROBES: Final = ("kprobe", "kprobe_multi")
"""Methods whose programs get registers and, at return, no arguments."""

SG_BLOCK: Final = 128
"""Entries in one block of a chained scatterlist: a page of struct scatterlist.

SG_MAX_SINGLE_ALLOC, include/linux/scatterlist.h: PAGE_SIZE / sizeof(struct scatterlist)."""


PROGRAMS: Final = 512
"""As many programs at most: two for each of 256 ways."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is compiled in. Ring sizes are in bytes, a power of two and whole pages."""

    event_ring: int = 2 << 20
    chunk_ring: int = 2 << 20
    max_segments: int = 4096
    stacks: bool = False
    page_size: int = 4096

    def defines(self) -> dict[str, int]:
        """As C macros."""
        block = self.page_size // 32
        result = {
            "EVENT_RING_PAGES": self.event_ring // self.page_size,
            "CHUNK_RING_PAGES": self.chunk_ring // self.page_size,
            "MAX_SEGMENTS": self.max_segments,
            "MAX_CHUNKS": (self.max_segments + block - 2) // (block - 1),
            "SG_BLOCK": block,
            "CHUNK_BYTES": self.page_size,
            "SG_CHAIN": 1,
            "BPF_RB_NO_WAKEUP": 1,
            "PROGRAMS": PROGRAMS,
        }
        if self.stacks:
            result["STACKS_EVERYWHERE"] = 1
        return result


@dataclass(frozen=True, slots=True)
class Program:
    """A program in the text: the function bcc compiled, and what it is attached to."""

    name: str
    way: Way
    at_return: bool
    number: int = 0
    """Unique over all units, below PROGRAMS."""


_FENTRY = """
int {name}(u64 *ctx)
{{
	struct call c = {{ .ctx = ctx, .program = {number}, .tid = bpf_get_current_pid_tgid() }};
{loads}
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


def _loads(count: int, ret: int | None = None) -> str:
    lines = [f"\tc.arg[{i}] = ctx[{i}];" for i in range(min(count, 5))]
    if ret is not None:
        lines.append(f"\tc.ret = ctx[{ret}];")
    return "\n".join(lines)


def _programs_of(number: int, way: Way) -> list[tuple[Program, str]]:
    hook = way.hook
    entry, leave = f"on_{hook.name}_entry", f"on_{hook.name}_exit"
    first, last = 2 * number, 2 * number + 1
    told = "is_told(&c) ? 0 : " if way.twins and not hook.knows else ""
    result = []
    if way.method in ("fentry", "raw_tracepoint"):
        count = way.arity if way.method == "fentry" else 3
        if hook.entry:
            name = f"{hook.name}_entry"
            text = _FENTRY.format(
                name=name, handler=entry, loads=_loads(count), number=first, told=told
            )
            result.append((Program(name, way, False, first), text))
        if hook.exit:
            name = f"{hook.name}_exit"
            text = _FENTRY.format(
                name=name,
                handler=leave,
                loads=_loads(count, count if hook.returns else None),
                number=last,
                told=told,
            )
            result.append((Program(name, way, True, last), text))
    elif way.method in KPROBES:
        calls = [f"\tsave_call({number}, &c);"] if hook.exit else []
        calls.append(f"\treturn {entry}(&c);" if hook.entry else "\treturn 0;")
        name = f"{hook.name}_entry"
        text = _KPROBE_ENTRY.format(name=name, body="\n".join(calls))
        result.append((Program(name, way, False, first), text))
        if hook.exit:
            name = f"{hook.name}_exit"
            text = _KPROBE_RETURN.format(name=name, number=number, handler=leave)
            result.append((Program(name, way, True, last), text))
    return result


SUBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "buffer": ("buffer.bpf.c",),
    "attach": ("attachment.bpf.h", "table.bpf.h", "attach.bpf.c"),
    "map": ("attachment.bpf.h", "table.bpf.h", "map.bpf.c"),
    "msm": ("table.bpf.h", "level2.bpf.h", "msm.bpf.c"),
    "iommu": ("iommu.bpf.c",),
}
"""The files of a subject, beyond those that every subject is built on; any other subject is a
level-2 provider's."""

_COMMON: Final = ("core.bpf.h", "objects.bpf.h", "frames.bpf.h")

UNITS: Final = (("map", "buffer"), ("attach", "iommu"))
"""Subjects compiled together: two texts, of about the same length, for two processors."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One text for the compiler and the programs in it."""

    text: str
    names: tuple[str, ...]
    """The C functions that are programs, and the bodies of subprograms."""
    programs: tuple[Program, ...] = ()
    """What the probe plan knows of them."""


def compose(
    ways: Iterable[Way],
    layout: str,
    options: Options,
    of_subject: Mapping[str, str] = MappingProxyType({}),
    first: int = 0,
) -> list[Unit]:
    """The texts for these ways; subjects that no unit names are a unit each.

    `of_subject`: structs that only one subject reads. `first`: the number of the first way, of
    which all together have 256 (kprobe.bpf.h).
    """
    present = [way for way in ways if way.method != "missing"]
    subjects = dict.fromkeys(way.hook.subject for way in present)
    grouped = {subject for unit in UNITS for subject in unit}
    units = [*UNITS, *((subject,) for subject in subjects if subject not in grouped)]
    numbers = {way: number for number, way in enumerate(present, first)}
    return [
        _unit(
            {way: numbers[way] for way in present if way.hook.subject in unit},
            subprograms.defines(subjects)
            + layout
            + "".join(of_subject.get(subject, "") for subject in unit),
            options,
        )
        for unit in units
        if not subjects.keys().isdisjoint(unit)
    ]


def _unit(ways: dict[Way, int], layout: str, options: Options) -> Unit:
    """One text. `ways` have numbers that are unique over all units: they key saved calls."""
    parts = [f"#define {name} {value}\n" for name, value in options.defines().items()]
    if all(way.method in ("fentry", "raw_tracepoint") for way in ways):
        parts.append("#define TYPED_ARGUMENTS\n")
    parts.append(layout)
    files = ["events.h", *_COMMON]
    if any(way.method in KPROBES for way in ways):
        files.append("kprobe.bpf.h")
    for subject in dict.fromkeys(way.hook.subject for way in ways):
        files += SUBJECTS.get(subject, ("level2.bpf.h", f"{subject}.bpf.c"))
    for name in dict.fromkeys(files):
        parts.append(f'#line 1 "{name}"\n{bpf_file(name)}')
    programs = []
    for way, number in ways.items():
        for program, text in _programs_of(number, way):
            programs.append(program)
            parts.append(text)
    bodies = subprograms.bodies({way.hook.subject for way in ways})
    parts += bodies.values()
    names = (*(program.name for program in programs), *bodies)
    return Unit("\n".join(parts), names, tuple(programs))
