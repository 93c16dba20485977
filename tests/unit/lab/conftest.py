# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the lab's runner importable, and gives each test a cache of its own."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMABUF_TOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lab"
