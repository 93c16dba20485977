# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of `report`, drawn from its document: captures, findings first, then tables.

Lines are at most WIDTH cells; names from outside are made safe, here for findings and in
render/table.py for cells.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from dmabuf_tool.kernel.text import safe, size
from dmabuf_tool.render import report_tables
from dmabuf_tool.render.report_cells import WIDTH, Line, Part, Row

_INDENT: Final = "         "
TOP: Final = 12
"""Rows of a table nobody asked for by --by."""

SHOWN: Final = {"error": 20, "warning": 20, "info": 3}
"""Causes of one finding that are told, by severity, the worst first."""

STYLES: Final = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def report(document: Mapping[str, Any], by: Sequence[str], width: int = WIDTH) -> list[Part]:
    """The whole report in lines of `width` cells at most.

    Without `by`: devices, and the buffers most was mapped of.
    """
    write = _Writer(max(40, min(width, WIDTH)))
    parts: list[Part] = [*write.captures(document), Line("")]
    parts += write.findings(document)
    for name in by or ("device", "buffer"):
        parts.append(Line(""))
        parts += report_tables.table_by(document, name, None if by else TOP)
    return parts


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the parts that are sentences."""

    _width: int

    def captures(self, document: Mapping[str, Any]) -> list[Line]:
        lines = []
        several = len(document["captures"]) > 1
        for index, capture in enumerate(document["captures"]):
            seconds = max(0, capture["end_ns"] - capture["start_ns"]) / 1e9
            lost = f"{capture['lost']} lost" if capture["lost"] else "losses below"
            lost = "none lost" if capture["complete"] else lost
            mark = f"[{index}] " if several else ""
            lines += self._wrap(
                f"{mark}{capture['file']}: {capture['host']}, kernel {capture['kernel']}, "
                f"{seconds:.1f} s, {capture['events']} events, {lost}",
                style="bold",
            )
            for note in capture["notes"]:
                lines += self._wrap(f"note: {note}", style="yellow")
            if capture["withheld"]:
                names = ", ".join(capture["withheld"])
                lines += self._wrap(
                    f"note: not told, as lost events could fake it: {names}", style="yellow"
                )
        losses = {name: count for name, count in document["losses"].items() if count}
        if losses:
            words = ", ".join(f"{count} {name}" for name, count in losses.items())
            lines += self._wrap(f"lost: {words}; what follows may be incomplete", style="bold red")
        return lines

    def findings(self, document: Mapping[str, Any]) -> list[Line]:
        findings = sorted(document["findings"], key=_rank)
        if not findings:
            return [Line("No findings.", "green")]
        lines = []
        starts = [capture["start_ns"] for capture in document["captures"]]
        for (_, severity, slug), same in groupby(findings, _rank):
            causes = list(same)
            for finding in causes[: SHOWN[severity]]:
                lines += self._finding(finding, starts)
            more = len(causes) - SHOWN[severity]
            if more > 0:
                text = f"{severity:<8} {slug}: {more} more causes, --only {slug} --json has all"
                lines.append(Line(text, STYLES[severity]))
        return lines

    def _finding(self, finding: Row, starts: Sequence[int]) -> list[Line]:
        mark = f"[{finding['capture']}] " if len(starts) > 1 else ""
        times = f" x{finding['count']}" if finding["count"] > 1 else ""
        head = f"{finding['severity']:<8} {mark}{finding['id']}{times}"
        about = _about(finding, starts[finding["capture"]])
        return [
            Line(safe(head), STYLES[finding["severity"]]),
            *self._wrap(finding["title"], _INDENT),
            *self._wrap(about, _INDENT, style="dim"),
            *self._wrap(f"-> {finding['advice']}", _INDENT, hang="   "),
        ]

    def _wrap(self, text: str, indent: str = "", *, hang: str = "", style: str = "") -> list[Line]:
        lines = textwrap.wrap(
            safe(text),
            self._width,
            initial_indent=indent,
            subsequent_indent=indent + hang,
            break_on_hyphens=False,
        )
        return [Line(line, style) for line in lines]


def _rank(finding: Row) -> tuple[int, str, str]:
    severity = finding["severity"]
    return (tuple(SHOWN).index(severity), severity, finding["id"])


def _about(finding: Row, start_ns: int) -> str:
    """Whom a finding is about, and when."""
    words = []
    if buffer := finding["buffer"]:
        name = f" {buffer['name']}" if buffer["name"] else ""
        words.append(
            f"buffer {buffer['id']}{name} (ino {buffer['ino']}, {buffer['exporter'] or 'unknown'}, "
            f"{size(buffer['size'])})"
        )
    if device := finding["device"]:
        driver = f" ({device['driver']})" if device["driver"] else ""
        words.append(f"device {device['name'] or device['id']}{driver}")
    if context := finding["context"]:
        words.append(f"domain {context['id']} ({context['kind'] or 'unknown type'})")
    if process := finding["process"]:
        words.append(f"process {process['comm'] or '?'} (pid {process['pid']})")
    first, last = ((finding[key] - start_ns) / 1e9 for key in ("first_ns", "last_ns"))
    when = f"at {first:.3f} s" if finding["count"] == 1 else f"from {first:.3f} to {last:.3f} s"
    return ", ".join([*words, when])
