# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors a user can cause: one line on stderr that says what to do, and an exit status."""


class ToolError(Exception):
    """The command cannot do what was asked. The text is shown as it is; exit status 1."""

    exit_status = 1


class UsageError(ToolError):
    """The command line or a configuration file is wrong; exit status 2."""

    exit_status = 2
