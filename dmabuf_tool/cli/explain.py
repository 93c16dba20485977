# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool explain`: what a finding means and what to do."""

from __future__ import annotations

import sys

import click

from dmabuf_tool.cli.output import format_options, write_json
from dmabuf_tool.errors import UsageError


@click.command("explain")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-l", "--list", "listed", is_flag=True, help="A line for each finding there is.")
@format_options
def command(ids: tuple[str, ...], listed: bool, output_format: str) -> None:
    """Explain findings: what holds, why it matters, what to do, and where the kernel says so.

    Without an ID, lists all.
    """
    from dmabuf_tool.render import explain
    from dmabuf_tool.rules.registry import rules

    known = {rule.id: rule for rule in rules()}
    for wanted in ids:
        if wanted not in known:
            raise UsageError(f"no finding is called '{wanted}': explain --list names them")
    chosen = [known[wanted] for wanted in ids] or list(known.values())
    if output_format == "json":
        write_json(explain.document(chosen))
    elif listed or not ids:
        sys.stdout.write(explain.listing(chosen))
    else:
        sys.stdout.write("\n".join(explain.explanation(rule) for rule in chosen))
