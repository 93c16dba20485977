# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool list`: the dma-bufs that exist now."""

from __future__ import annotations

from typing import Any

import click

from dmabuf_tool.cli.output import format_options, write_json, write_page
from dmabuf_tool.cli.selecting import selecting_options
from dmabuf_tool.errors import ToolError


@click.command("list")
@selecting_options(
    pid="Only what PID holds",
    comm="Only what NAME holds",
    exporter="Only buffers of this exporter",
    device="Only buffers this device is attached to",
)
@click.option(
    "--by",
    type=click.Choice(["buffer", "process", "device", "exporter"]),
    default="buffer",
    show_default=True,
    help="What a line of the table stands for.",
)
@format_options
def command(by: str, output_format: str, **filters: tuple[Any, ...]) -> None:
    """List the dma-bufs that exist now, who is attached and who holds them.

    Attaches no probes. Without root it shows what this user may read and says what is missing.
    """
    from dmabuf_tool.kernel import inventory
    from dmabuf_tool.probes import iterator
    from dmabuf_tool.render import list as render

    found = inventory.take(instead=iterator.read)
    if not found.readable:
        reasons = "; ".join(f"{source.name}: {source.detail}" for source in found.sources)
        raise ToolError(f"nothing can be read ({reasons})")
    chosen = inventory.select(found, **filters)
    if output_format == "json":
        from dmabuf_tool.kernel.machine import machine

        write_json(render.document(chosen, machine()))
    else:
        write_page(render.page(chosen, by))
