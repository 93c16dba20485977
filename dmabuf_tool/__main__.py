# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -m dmabuf_tool` is the same as `dmabuf-tool`."""

from dmabuf_tool.cli.main import main

main()
