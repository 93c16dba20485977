# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool report`: what captures hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dmabuf_tool.cli.output import format_options, is_plain, write_json
from dmabuf_tool.cli.settings import engine, judging_options
from dmabuf_tool.errors import UsageError

if TYPE_CHECKING:
    from dmabuf_tool.model.history import History
    from dmabuf_tool.render.report import Capture
    from dmabuf_tool.rules.base import Severity
    from dmabuf_tool.rules.engine import Engine

_SEVERITIES = ["info", "warning", "error"]
FINDINGS_STATUS = 3
WIDTH = 98
"""Cells of a line in a pipe, as of render/report_cells.py."""


@click.command("report")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option(
    "--by",
    type=click.Choice(["device", "buffer", "process", "exporter", "context"]),
    multiple=True,
    help="A table with a line for each; may be given more than once.",
)
@click.option(
    "--min-severity",
    type=click.Choice(_SEVERITIES),
    default="info",
    show_default=True,
    help="Leave milder findings out.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Instead of a report: who had this DMA address or address in a context, and when.",
)
@click.option(
    "-D", "--device", metavar="NAME", help="With --address: only as an address of this device."
)
@click.option("--only", metavar="ID", multiple=True, help="Only findings with this id.")
@click.option(
    "--fail-on",
    type=click.Choice(_SEVERITIES),
    help="Exit with status 3 if a finding is as bad or worse.",
)
@judging_options
@format_options
def command(
    files: tuple[Path, ...],
    by: tuple[str, ...],
    min_severity: str,
    address: str | None,
    device: str | None,
    only: tuple[str, ...],
    fail_on: str | None,
    output_format: str,
    **judging: Any,
) -> int:
    """Report what captures of 'dmabuf-tool trace -o' hold: findings first, then tables.

    Needs no root, and no machine like the one that was traced.
    """
    from dmabuf_tool.render import report
    from dmabuf_tool.rules.base import Severity
    from dmabuf_tool.rules.registry import rules

    known = {rule.id for rule in rules()}
    for wanted in only:
        if wanted not in known:
            raise UsageError(
                f"no finding is called '{wanted}'; those there are: {', '.join(sorted(known))}"
            )
    least = Severity[min_severity.upper()]
    if address is not None:
        return _address(files, _number(address), device or "", output_format == "json")
    if device is not None:
        raise UsageError("--device goes with --address; --by device has a line for each device")
    captures = [read(file, engine(**judging), only, least) for file in files]
    document = report.document(captures)
    if output_format == "json":
        write_json(document)
    else:
        _write(document, by)
    worst = max((finding.severity for one in captures for finding in one.findings), default=None)
    if fail_on is not None and worst is not None and worst >= Severity[fail_on.upper()]:
        return FINDINGS_STATUS
    return 0


def _number(text: str) -> int:
    """An address as people and logs write it: 0xfff00000, or decimal. Raises UsageError."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"--address {text}: write it as 0xfff00000")
    return number


def _address(files: tuple[Path, ...], address: int, device: str, as_json: bool) -> int:
    """The history of an address in all captures."""
    from dmabuf_tool.cli.output import write_page
    from dmabuf_tool.model.history import History
    from dmabuf_tool.render import history
    from dmabuf_tool.rules.base import Severity
    from dmabuf_tool.rules.engine import Engine

    asked = []
    for file in files:
        told = History(address, device)
        asked.append(history.Asked(read(file, Engine(), (), Severity.INFO, told), told))
    document = history.document(asked, address, device)
    if as_json:
        write_json(document)
    else:
        write_page(history.parts(document), WIDTH)
    return 0


def read(
    file: Path,
    engine: Engine,
    only: tuple[str, ...],
    least: Severity,
    told: History | None = None,
) -> Capture:
    """Read a capture through the model and the rules; `told` gets every step. Raises ToolError."""
    from dmabuf_tool.capture.reader import open_capture
    from dmabuf_tool.cli.progress import Progress
    from dmabuf_tool.model import inventory
    from dmabuf_tool.model.gather import gather
    from dmabuf_tool.model.memory import DeviceMemory
    from dmabuf_tool.render.report import Capture

    with open_capture(file) as reader, Progress(f"reading {file.name}", reader.size) as bar:
        engine.model.memory = DeviceMemory.of(reader.header.devices)
        for batch in gather(reader.batches()):
            step = engine.feed(batch)
            if told is not None:
                told.look(step)
            bar.at(reader.position)
        for entry in reader.inventory:
            inventory.take(engine.model, entry)
        engine.model.advance(reader.end_ns)
        header = reader.header
        findings = [
            finding
            for finding in engine.findings()
            if finding.severity >= least and (not only or finding.rule.id in only)
        ]
        return Capture(
            file=str(file),
            host=header.host,
            kernel=header.kernel,
            boot_id=header.boot_id,
            start_ns=header.start_ns,
            end_ns=max(reader.end_ns, engine.model.last_ns),
            notes=reader.notes,
            model=engine.model,
            findings=findings,
            withheld=engine.found.withheld(),
        )


def _write(document: dict[str, Any], by: tuple[str, ...]) -> None:
    from dmabuf_tool.render import report_cells, report_text, table

    width = report_cells.WIDTH
    if sys.stdout.isatty():
        width = os.get_terminal_size().columns or width
    parts = report_text.report(document, by, width)
    if is_plain():
        for part in parts:
            if isinstance(part, table.Table):
                sys.stdout.write(table.text(part, min(width, report_cells.WIDTH)))
            else:
                sys.stdout.write(part.text + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, table.Table):
            console.print(*table.rich_page([part]))
        else:
            console.print(Text(part.text, part.style), soft_wrap=True)
