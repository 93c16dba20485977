# SPDX-License-Identifier: GPL-2.0-or-later
"""The `dmabuf-tool` command: finds the verb, turns errors into one line and a status.

Verbs are imported when they are used, so that `--help` and completion need neither numpy
nor bcc.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from dmabuf_tool import __version__
from dmabuf_tool.errors import ToolError

# verb -> one line of help. The module of the same name in this package holds a click command
# called `command`.
VERBS: Final = {
    "trace": "Trace dma-bufs live; -o records a capture.",
    "report": "Report what captures hold: findings, devices, buffers, contexts.",
    "explain": "Say what a finding means, why it matters and what to do.",
    "list": "List the dma-bufs that exist now, who is attached and who holds them.",
    "devices": "List devices with their DMA limits, IOMMU group and domain.",
    "doctor": "Say what can be traced on this machine, and how to fix what cannot.",
}


class Verbs(click.Group):
    """A click group that imports a verb's module only when that verb runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs in the order of the table above."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"dmabuf_tool.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse what is no verb; click alone takes ".x" for an option and shows the help."""
        if args[0] not in VERBS:
            ctx.fail(f"No such command {args[0]!r}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="dmabuf-tool")
def cli() -> None:
    """See how devices share dma-bufs: what was mapped where, and what did not fit."""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        status = cli(standalone_mode=False)
    except click.exceptions.Abort:
        status = 1
    except click.ClickException as error:
        # One line that says what is wrong; usage errors also name the help.
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see '{error.ctx.command_path} --help')"
        click.echo(f"dmabuf-tool: {error.format_message()}{hint}", err=True)
        status = error.exit_code
    except ToolError as error:
        click.echo(f"dmabuf-tool: {error}", err=True)
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader went away (report | head): not an error. Keep the interpreter's exit quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)
