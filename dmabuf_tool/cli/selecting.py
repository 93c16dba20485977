# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that choose by process, device and exporter; the same letters in every verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


def selecting_options(
    *, pid: str, comm: str, exporter: str, device: str
) -> Callable[[_Function], _Function]:
    """Add -p, -c, -x and -D; the words say what each chooses in this verb.

    The verb gets `pids`, `comms`, `exporters` and `devices`.
    """

    def add(function: _Function) -> _Function:
        for short, long, name, words in (
            ("-x", "--exporter", "exporters", exporter),
            ("-D", "--device", "devices", device),
            ("-c", "--comm", "comms", comm),
        ):
            function = click.option(
                short, long, name, metavar="NAME", multiple=True, help=f"{words}; may have *."
            )(function)
        return click.option("-p", "--pid", "pids", type=int, multiple=True, help=f"{pid}.")(
            function
        )

    return add
