# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that the documents name are there."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PLACES = (PROJECT, PROJECT / "dmabuf_tool", PROJECT / "tests/lab")
DOCUMENTS = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("tests/**/*.md")]
# From the top, or a Python file from the package or the lab; the kernel's own are C.
NAMED = re.compile(
    r"(?<![\w./<-])((?:tests|docs|man|bpf|dmabuf_tool)/[\w./*-]*\w|\w+/[\w/*]+\.py)(?![\w/<>])"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_files_that_are_named_are_there(document: Path) -> None:
    named = set(NAMED.findall(document.read_text()))
    assert {name for name in named if not any(any(place.glob(name)) for place in PLACES)} == set()


def test_enough_is_looked_at() -> None:
    assert {path.stem for path in DOCUMENTS} >= {"README", "architecture", "decisions", "lab"}
    assert len(NAMED.findall((PROJECT / "docs/architecture.md").read_text())) > 15
