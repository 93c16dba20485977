# SPDX-License-Identifier: GPL-2.0-or-later
"""constraints.toml: what it says, and one line with the place for what is wrong."""

from pathlib import Path

import pytest

from dmabuf_tool.errors import UsageError
from dmabuf_tool.model.configured import load_constraints
from dmabuf_tool.model.constraints import Configured, Limits, Source, effective
from dmabuf_tool.model.frameworks import FRAMEWORKS, UNKNOWN
from dmabuf_tool.model.objects import Device

GOOD = """
[[device]]
name = "fe80*"
driver = "rga"
max_segment_count = 4
max_segment_size = "64K"
boundary = 0x10000
alignment = "4KiB"
address_limit = "4G"
coherent = false
pages = true

[[device]]
driver = "rga"
max_segment_count = 9
"""


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "constraints.toml"
    path.write_text(text)
    return load_constraints(path)


def test_first_table_that_fits(tmp_path: Path) -> None:
    file = load(tmp_path, GOOD)
    assert callable(file)
    assert file(Device(1, "fe800000.rga", "rga")) == Configured(
        max_segment_count=4, max_segment_size=65536, segment_boundary_mask=0xFFFF,
        min_align_mask=4095, address_limit=0xFFFF_FFFF, coherent=False, pages=True,
    )  # fmt: skip
    assert file(Device(1, "ff", "rga")) == Configured(max_segment_count=9)
    assert file(Device(1, "fe800000.rga", "other")) is None


def test_configured_wins_and_says_so() -> None:
    limits = Limits(1, bus="pci", dma_mask=0xFFFF, has_parms=True, max_segment_size=8192)
    force = effective(limits, UNKNOWN, Configured(max_segment_size=4096, address_limit=1 << 20))
    assert (force.max_segment_size, force.segment_size_source) == (4096, Source.CONFIGURED)
    assert (force.address_limit, force.address_source) == (1 << 20, Source.CONFIGURED)
    assert (force.pages, force.pages_source) == (False, Source.NONE)


def test_pages_inferred_or_configured() -> None:
    msm = next(one for one in FRAMEWORKS if one.name == "msm")
    force = effective(Limits(1), msm)
    assert (force.pages, force.pages_source) == (True, Source.INFERRED)
    force = effective(Limits(1), msm, Configured(pages=False))
    assert (force.pages, force.pages_source) == (False, Source.CONFIGURED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[device]", "line 1"),
        ("[[devices]]\nname='x'", "unknown key 'devices'"),
        ("device = 3", "'device' is not a list"),
        ("[[device]]\nmax_segment_count = 1", "[[device]] 1: neither name nor driver"),
        ("[[device]]\nname='x'\nmax_segment_count = 0", "max_segment_count is not a number"),
        ("[[device]]\nname='x'\nmax_segment_count = true", "max_segment_count is not a number"),
        ("[[device]]\nname='x'\nboundary = 3000", "boundary is not a power of two"),
        ("[[device]]\nname='x'\nmax_segment_size = '64Q'", "is not a size"),
        ("[[device]]\nname='x'\ncoherent = 1", "neither true nor false"),
        ("[[device]]\nname=7", "name is not a name"),
        ("[[device]]\nname='x'\n[[device]]\nname='y'\nsize=1", "[[device]] 2: unknown key 'size'"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, text)
    assert says in str(raised.value)
    assert str(tmp_path / "constraints.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_constraints(tmp_path / "none.toml")
