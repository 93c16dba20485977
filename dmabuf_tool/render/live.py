# SPDX-License-Identifier: GPL-2.0-or-later
"""`trace` on a terminal: findings, devices, the two-level table and buffers on one screen.

`dashboard` is a function from a Snapshot and a screen size to a rich renderable; who calls it,
how often (2-4 Hz) and where the numbers come from is not known here. Rows come best first: what
does not fit is counted. Names are made safe here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from dmabuf_tool.kernel.text import many, safe, width
from dmabuf_tool.render.details import human_size
from dmabuf_tool.schema import Losses

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Row = TypeVar("Row")


@dataclass(slots=True)
class FindingRow:
    """What was found by one rule: the title of the first cause, the worst."""

    id: str
    severity: str
    title: str
    causes: int = 0
    count: int = 0
    last_ns: int = 0


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device: its limits and what it mapped. Rates are a second."""

    name: str
    driver: str = ""
    mask_bits: int | None = None
    domain: str = ""
    """Type of its IOMMU domain, "" without IOMMU."""
    attached: int = 0
    maps: int = 0
    map_rate: float = 0.0
    byte_rate: float = 0.0
    failed: int = 0
    bounced: int = 0


@dataclass(frozen=True, slots=True)
class LevelRow:
    """A buffer in a device's address space, and, where there is one, in a context behind it;
    `size` is that of the range in the context then."""

    buffer: str
    """As "#3"."""
    size: int
    device: str
    domain: str = ""
    """Type of the domain that level 1 went through, "" for none."""
    address: int | None = None
    """DMA address of the first entry."""
    segments: int = 0
    context: str = ""
    """Level 2: the GPU address space and its owner, as "vm 5 glxgears/312"."""
    context_address: int | None = None
    source: str = ""
    """What fills level 2: "nested", "dma-address", "pages" or "unknown"."""


@dataclass(frozen=True, slots=True)
class BufferRow:
    """A buffer that lives."""

    buffer: str
    ino: int
    exporter: str
    size: int
    name: str = ""
    process: str = ""
    """Who exported it, as "weston/312"."""
    devices: Sequence[str] = ()
    maps: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the screen shows; sequences have the most telling row first."""

    elapsed_s: float
    now_ns: int = 0
    """CLOCK_MONOTONIC of the snapshot, to say how long ago a finding was."""
    events: int = 0
    event_rate: float = 0.0
    map_rate: float = 0.0
    live_buffers: int = 0
    live_bytes: int = 0
    recording: str = ""
    """Where to and how much, or why no more; "" without -o."""
    losses: Losses = field(default_factory=Losses)
    notes: Sequence[str] = ()
    """What cannot be traced here, one line each."""
    findings: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """JSON objects of findings: id, severity, title, count and last_ns are shown."""
    devices: Sequence[DeviceRow] = ()
    levels: Sequence[LevelRow] = ()
    buffers: Sequence[BufferRow] = ()


@dataclass(frozen=True)
class _Column(Generic[Row]):
    """A column of a section; shown on terminals of at least `terminal` cells."""

    name: str
    cell: Callable[[Row], str]
    right: bool = False
    terminal: int = 0
    stretch: bool = False
    style: Callable[[Row], str] = lambda _: ""


_SEVERITY_STYLE: Final = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def _red(number: int) -> str:
    return "red" if number else "dim"


def _address(value: int | None) -> str:
    return "-" if value is None else f"{value:#x}"


def _rate(value: float) -> str:
    """Times a second in few characters: 0.4, 12, 3.4k, 1.2M."""
    for unit in ("", "k", "M"):
        if value < 1000 or unit == "M":
            break
        value /= 1000
    return f"{value:.0f}{unit}" if value >= 10 or not value else f"{value:.1f}{unit}"


_DEVICES: Final[Sequence[_Column[DeviceRow]]] = (
    _Column("DEVICE", lambda row: row.name, stretch=True),
    _Column("DRIVER", lambda row: row.driver or "-"),
    _Column("MASK", lambda row: str(row.mask_bits or "-"), right=True),
    _Column("DOMAIN", lambda row: row.domain or "-"),
    _Column("ATTACHED", lambda row: str(row.attached), right=True),
    _Column("MAPS", lambda row: str(row.maps), right=True, terminal=100),
    _Column("MAPS/s", lambda row: _rate(row.map_rate), right=True),
    _Column("B/s", lambda row: human_size(int(row.byte_rate)), right=True),
    _Column("BOUNCED", lambda row: str(row.bounced), right=True, terminal=100,
            style=lambda row: _red(row.bounced)),
    _Column("FAILED", lambda row: str(row.failed), right=True, style=lambda row: _red(row.failed)),
)  # fmt: skip

_LEVEL1: Final[Sequence[_Column[LevelRow]]] = (
    _Column("BUFFER", lambda row: row.buffer),
    _Column("SIZE", lambda row: human_size(row.size), right=True, terminal=100),
    _Column("LEVEL 1", lambda row: row.device, stretch=True),
    _Column("DOMAIN", lambda row: row.domain or "direct"),
    _Column("ADDRESS", lambda row: _address(row.address), right=True),
    _Column("RUNS", lambda row: str(row.segments or "-"), right=True),
)

_LEVEL2: Final[Sequence[_Column[LevelRow]]] = (
    _Column("LEVEL 2", lambda row: row.context or "-", stretch=True),
    _Column("ADDRESS", lambda row: _address(row.context_address), right=True),
    _Column("SOURCE", lambda row: row.source or "-", terminal=100),
)

_BUFFERS: Final[Sequence[_Column[BufferRow]]] = (
    _Column("BUFFER", lambda row: row.buffer),
    _Column("INO", lambda row: str(row.ino), right=True),
    _Column("SIZE", lambda row: human_size(row.size), right=True),
    _Column("EXPORTER", lambda row: row.exporter),
    _Column("NAME", lambda row: row.name or "-", terminal=100, stretch=True),
    _Column("PROCESS", lambda row: row.process or "-", stretch=True),
    _Column("MAPS", lambda row: str(row.maps), right=True),
    _Column("ATTACHED", lambda row: " ".join(row.devices) or "-", stretch=True),
)


def dashboard(snapshot: Snapshot, columns: int, lines: int) -> RenderableType:
    """The screen, at most `columns` x `lines` cells."""
    from rich.console import Group

    top = _head(snapshot)
    now = snapshot.now_ns
    findings: Sequence[_Column[FindingRow]] = (
        _Column("FINDING", lambda row: row.id, stretch=True,
                style=lambda row: _SEVERITY_STYLE[row.severity]),
        _Column("SEVERITY", lambda row: row.severity),
        _Column("WORST CASE", lambda row: row.title, stretch=True),
        _Column("CAUSES", lambda row: str(row.causes), right=True, terminal=100),
        _Column("TIMES", lambda row: str(row.count), right=True),
        _Column("LAST", lambda row: _ago(now - row.last_ns), right=True),
    )  # fmt: skip
    sections: list[tuple[Sequence[Any], Sequence[_Column[Any]], str]] = [
        (by_rule(snapshot.findings), findings, "none so far"),
        (snapshot.devices, _DEVICES, "none attached so far"),
        (snapshot.levels, _levels(snapshot.levels), "nothing mapped now"),
        (snapshot.buffers, _BUFFERS, "none now"),
    ]
    # A section takes a blank line and its head; on a low terminal the last ones are left out.
    room = lines - len(top)
    sections = sections[: max(1, room // 4)]
    shares = share([max(1, len(rows)) for rows, _, _ in sections], room - 2 * len(sections))
    parts: list[RenderableType] = [*top]
    for (rows, shape, empty), most in zip(sections, shares, strict=True):
        parts += ["", *_section(rows, shape, empty, most, columns)]
    return Group(*parts)


def by_rule(findings: Sequence[Mapping[str, Any]]) -> list[FindingRow]:
    """One row for all causes of a finding of one severity, in the order of the first of each."""
    rows: dict[tuple[str, str], FindingRow] = {}
    for one in findings:
        key = (one["id"], one["severity"])
        row = rows.setdefault(key, FindingRow(*key, title=one["title"]))
        row.causes += 1
        row.count += one["count"]
        row.last_ns = max(row.last_ns, one["last_ns"])
    return list(rows.values())


def _levels(rows: Sequence[LevelRow]) -> Sequence[_Column[LevelRow]]:
    """Level 2 has columns when there is any."""
    return (*_LEVEL1, *_LEVEL2) if any(row.context for row in rows) else _LEVEL1


def share(wanted: Sequence[int], room: int) -> list[int]:
    """Divide `room` lines: nobody gets more than wanted, the rest is shared evenly."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for index, most in enumerate(wanted):
            if given[index] < most and room > 0:
                given[index] += 1
                room -= 1
    return given


def _head(snapshot: Snapshot) -> list[Text]:
    """The first lines: what goes on, what was lost, what cannot be seen."""
    from rich.text import Text

    minutes, seconds = divmod(int(snapshot.elapsed_s), 60)
    first = Text.assemble(
        ("dmabuf-tool trace", "bold"),
        f"  {minutes:02}:{seconds:02}  {snapshot.events} events, {_rate(snapshot.event_rate)}/s"
        f"  {_rate(snapshot.map_rate)} maps/s  {many(snapshot.live_buffers, 'buffer')}, "
        f"{human_size(snapshot.live_bytes)}",
    )
    second = Text()
    if snapshot.losses:
        lost = snapshot.losses
        second.append(
            f"lost: {lost.events} events, {lost.scatterlists} scatterlist entries, "
            f"{lost.calls} calls, {lost.untracked} untracked",
            "bold red",
        )
    else:
        second.append("nothing lost", "green")
    if snapshot.recording:
        second.append(f"  {safe(snapshot.recording)}")
    second.append("  Ctrl-C ends", "dim")
    lines = [first, second]
    lines += [Text(safe(note), "yellow") for note in snapshot.notes[:2]]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _ago(duration_ns: int) -> str:
    """How long ago: "now", "12s", "3m"."""
    seconds = max(0, duration_ns) // 1_000_000_000
    if seconds < 1:
        return "now"
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"


def _section(
    rows: Sequence[Any], columns: Sequence[_Column[Any]], empty: str, most: int, terminal: int
) -> list[Text]:
    """A table of at most `most` lines below its head; the last says how many rows are not shown."""
    from rich.text import Text

    shown = [column for column in columns if terminal >= column.terminal]
    fitting = rows if len(rows) <= most else rows[: max(0, most - 1)]
    cells = [[safe(column.cell(row)) for column in shown] for row in fitting]
    natural = [
        max([len(column.name), *(width(line[index]) for line in cells)])
        for index, column in enumerate(shown)
    ]
    widths = fit(natural, [column.stretch for column in shown], terminal - 2 * (len(shown) - 1))
    lines = [_line([Text(column.name, "bold") for column in shown], shown, widths)]
    for row, line in zip(fitting, cells, strict=True):
        texts = [Text(cell, column.style(row)) for cell, column in zip(line, shown, strict=True)]
        lines.append(_line(texts, shown, widths))
    if most and not rows:
        lines.append(Text(empty, "dim"))
    elif most and len(fitting) < len(rows):
        lines.append(Text(f"... {len(rows) - len(fitting)} more", "dim"))
    return lines


def _line(texts: Sequence[Text], columns: Sequence[_Column[Any]], widths: Sequence[int]) -> Text:
    """The cells of one line under their heads. (rich's own tables shrink the wrong columns.)"""
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis")
    for text, column, wide in zip(texts, columns, widths, strict=True):
        text.overflow = "ellipsis"
        text.align("right" if column.right else "left", wide)
        line.append_text(text)
        line.append("  ")
    line.rstrip()
    return line


def fit(natural: Sequence[int], stretch: Sequence[bool], room: int) -> list[int]:
    """Column widths that fit `room`: the widest that may shrink are cut first, to 6 cells."""
    widths = list(natural)
    while sum(widths) > room:
        most = max((wide for wide, can in zip(widths, stretch, strict=True) if can), default=0)
        if most <= 6:
            break
        for index, can in enumerate(stretch):
            if can and widths[index] == most:
                widths[index] -= 1
                break
    return widths
