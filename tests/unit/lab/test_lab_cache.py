# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's cache: keys, atomic building, pruning."""

from pathlib import Path

import pytest
from vm import cache


def test_digest_sees_names_modes_and_contents(tmp_path: Path) -> None:
    top = tmp_path / "src"
    top.mkdir()
    (top / "a.c").write_text("one")
    first = cache.digest("6.12", top)
    assert first == cache.digest("6.12", top)
    assert first != cache.digest("7.2", top)
    (top / "a.c").chmod(0o755)
    second = cache.digest("6.12", top)
    assert second != first
    (top / "a.c").rename(top / "b.c")
    assert cache.digest("6.12", top) not in (first, second)


def test_digest_ignores_what_python_and_editors_leave(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("pass")
    first = cache.digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_bytes(b"x")
    (tmp_path / ".a.py.swp").write_bytes(b"x")
    assert cache.digest(tmp_path) == first


def test_building_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "image"
    with pytest.raises(RuntimeError), cache.building(place) as work:
        (work / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "image.tmp").mkdir()
    (tmp_path / "image.tmp/of a run that died").touch()
    with cache.building(place) as work:
        assert not place.exists()
        (work / "whole").touch()
    assert [path.name for path in place.iterdir()] == ["whole"]


def test_prune_spares_the_kept_the_young_and_the_used(tmp_path: Path) -> None:
    for name in ("6.12-old", "6.12-used", "6.12-now", "6.1-other"):
        (tmp_path / name).mkdir()
    cache.prune(tmp_path, "6.12-", "6.12-now", cache.DAY)
    assert (tmp_path / "6.12-old").exists()
    with cache.in_use(tmp_path / "6.12-used"):
        cache.prune(tmp_path, "6.12-", "6.12-now")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "6.1-other",
        "6.12-now",
        "6.12-used",
    ]


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DMABUF_TOOL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "dmabuf-tool/lab"
