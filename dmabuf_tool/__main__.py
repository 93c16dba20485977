# SPDX-License-Identifier: GPL-2.0-or-later
"""The command, and `python3 -m dmabuf_tool`, which is the same."""

import sys


def main() -> None:
    """Run the command line and exit with its status.

    Where a trace will have to compile, the compiler is brought in by another process while this one
    imports all the rest.
    """
    if sys.argv[1:2] == ["trace"]:
        from dmabuf_tool.probes import workshop

        workshop.open_early()
    from dmabuf_tool.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
