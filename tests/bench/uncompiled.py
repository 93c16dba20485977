# SPDX-License-Identifier: GPL-2.0-or-later
"""dmabuf-tool as it is installed where its probes cannot be compiled: it does so when it starts."""

from pathlib import Path

from dmabuf_tool.probes import cache

cache.OBJECTS_DIRECTORY = Path("/nowhere")  # before anybody asks

from dmabuf_tool.__main__ import main  # noqa: E402

main()
