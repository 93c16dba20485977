# SPDX-License-Identifier: GPL-2.0-or-later
"""Every man page is well formed."""

import subprocess
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "man").glob("*.[1-8]"))


def test_there_are_pages() -> None:
    assert {"dmabuf-tool.1", "dmabuf-tool-trace.1", "dmabuf-capture.5"} <= {p.name for p in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_groff_has_no_complaints(page: Path) -> None:
    done = subprocess.run(
        ["groff", "-t", "-man", "-Tutf8", "-ww", "-rLL=78n", page],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
