# SPDX-License-Identifier: GPL-2.0-or-later
"""The command, and `python3 -m dmabuf_tool`, which is the same."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] == ["trace"]:
        _trace()
    else:
        _any()


def _any() -> None:
    from dmabuf_tool.cli import main as cli

    cli.main()


def _trace() -> None:
    """Where a trace will have to compile, another process brings in the compiler while this one
    imports all the rest."""
    try:
        from dmabuf_tool.kernel import children
        from dmabuf_tool.probes import workshop

        children.hold_stops()  # until live.py can say so
    except KeyboardInterrupt:
        sys.exit("dmabuf-tool: stopped before tracing began; nothing was recorded")
    workshop.open_early()
    try:
        _any()
    finally:
        workshop.early.close()


if __name__ == "__main__":
    main()
