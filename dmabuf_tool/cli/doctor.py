# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool doctor`: what can be traced on this machine."""

from __future__ import annotations

import click

from dmabuf_tool.cli.output import format_options, write_json, write_page


@click.command("doctor")
@format_options
@click.pass_context
def command(ctx: click.Context, output_format: str) -> None:
    """Say what can be traced on this machine, and how to fix what cannot.

    Exits with status 0 if tracing is possible and 1 if not. Tries probes for an instant to know.
    """
    from dmabuf_tool.kernel import checks
    from dmabuf_tool.kernel.machine import machine
    from dmabuf_tool.probes import checks as probe_checks
    from dmabuf_tool.render import doctor as render

    found = [*checks.run(), *probe_checks.run()]
    if output_format == "json":
        write_json(render.document(found, machine()))
    else:
        write_page(render.page(found, machine()))
    ctx.exit(1 if checks.missing_requirements(found) else 0)
