# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool trace`: what happens now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dmabuf_tool.cli.selecting import selecting_options
from dmabuf_tool.cli.settings import engine, judging_options
from dmabuf_tool.errors import UsageError


@click.command("trace", context_settings={"ignore_unknown_options": False})
@selecting_options(
    pid="Only what PID does",
    comm="Only what NAME does",
    exporter="Only buffers of this exporter",
    device="Only attachments of this device",
)
@click.option(
    "-d",
    "--duration",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop after this time.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record a capture for 'dmabuf-tool report'.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["auto", "live", "lines", "json", "none"]),
    default="auto",
    show_default=True,
    help="How events are shown; auto: a dashboard on a terminal, nothing with -o, else lines.",
)
@click.option("--failed", is_flag=True, help="Show only what failed.")
@click.option("--stacks", is_flag=True, help="Take and show the call stack of every dma-buf call.")
@click.option("--segments", is_flag=True, help="With --format json: the entries of each table.")
@click.option(
    "--max-segments",
    type=click.IntRange(1, 8128),
    default=4096,
    show_default=True,
    help="Scatterlist entries taken of one table; longer tables are marked as cut.",
)
@click.option(
    "-m",
    "--buffer-size",
    type=click.Choice(["1", "2", "4", "8", "16", "32", "64", "128"]),
    default="1",
    show_default=True,
    help="Size of each of the two ring buffers, in MiB.",
)
@judging_options
@click.option("-q", "--quiet", is_flag=True, help="No words about the trace itself.")
@click.option("-v", "--verbose", is_flag=True, help="Also show IOMMU maps inside dma-buf maps.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    output_format: str,
    buffer_size: str,
    duration_s: float | None,
    constraints: Path | None,
    thresholds: tuple[str, ...],
    **asked: Any,
) -> int:
    """Trace dma-bufs on this machine: until Ctrl-C, for a time, or while COMMAND runs.

    Needs root. COMMAND comes after "--"; its exit status is passed on.
    """
    from dmabuf_tool import live

    if output_format == "auto":
        output_format = "live" if sys.stdout.isatty() else "lines"
        if asked["output"] is not None:
            output_format = "none"
    request = live.Request(
        output_format=output_format,
        buffer_bytes=int(buffer_size) << 20,
        duration_s=duration_s or 0.0,
        **asked,
    )
    if not request.judges and (constraints or thresholds):
        raise UsageError(
            "--constraints and --threshold: -o alone records and judges nothing; give them to"
            " 'dmabuf-tool report', or add --format"
        )
    return live.run(request, lambda: engine(constraints, thresholds))
