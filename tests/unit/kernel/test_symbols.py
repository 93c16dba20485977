# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from tree import write

from dmabuf_tool.kernel import symbols

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81a42050 T dma_buf_export
ffffffff81a42900 t helper
ffffffff81a42b00 t iommu_pgsize.isra.0
ffffffff82000000 D some_data
ffffffff82e00000 b last_data
ffffffffc0710000 t helper\t[vgem]
ffffffffc0710100 T vgem_open\t[vgem]
ffffffffc0500040 t bpf_prog_6deef7357e7b4530_x\t[bpf]
"""


@pytest.fixture(params=[1 << 18, 64])
def root(tmp_path, request, monkeypatch):
    monkeypatch.setattr(symbols, "_PIECE", request.param)  # many pieces give the same
    write(tmp_path, "proc/kallsyms", KALLSYMS)
    return tmp_path


def test_find(root):
    found = symbols.find(["dma_buf_export", "helper", "iommu_pgsize", "nope", "T"], root)
    assert found == {
        "dma_buf_export": (symbols.Symbol("dma_buf_export", 0xFFFFFFFF81A42050, "T", None),),
        "helper": (
            symbols.Symbol("helper", 0xFFFFFFFF81A42900, "t", None),
            symbols.Symbol("helper", 0xFFFFFFFFC0710000, "t", "vgem"),
        ),
    }


def test_locate(root):
    table = symbols.Table.read(root)
    assert len(table) == 8
    places = table.locate(
        [0xFFFFFFFF81A42050, 0xFFFFFFFF81A42950, 0xFFFFFFFFC0710123, 0xFFFFFFFFC0500040]
    )
    assert [str(place) for place in places] == [
        "dma_buf_export+0x0",
        "helper+0x50",
        "vgem_open+0x23 [vgem]",
        "bpf_prog_6deef7357e7b4530_x+0x0 [bpf]",
    ]


def test_an_alias_is_named_as_kallsyms_does_first(root):
    (place,) = symbols.Table.read(root).locate([0xFFFFFFFF81000004])
    assert str(place) == "_text+0x4"


def test_addresses_in_no_function(root):
    table = symbols.Table.read(root)
    assert table.locate([0, 0xFFFFFFFF82E00000, 2**64 - 1, 0xFFFFFFFF80FFFFFF]) == [None] * 4


def test_behind_a_modules_end_its_last_function_is_not_meant(root):
    """There was another module, which is unloaded by now."""
    inside, behind = 0xFFFFFFFFC0711FFF, 0xFFFFFFFFC0712000
    for line, named in (
        ("vgem 8192 0 - Live 0xffffffffc0710000", [True, False]),
        ("vgem 8192 0 - Live 0x0000000000000000", [True, True]),  # hidden: not known
        ("drm 8192 0 - Live 0xffffffffc0710000", [True, True]),
    ):
        write(root, "proc/modules", line + "\n")
        places = symbols.Table.read(root).locate([inside, behind])
        assert [place is not None for place in places] == named
    assert str(places[0]) == "vgem_open+0x1eff [vgem]"
    # Its init function lay outside of it; what is there now is something else.
    write(root, "proc/modules", "vgem 8192 0 - Live 0xffffffffc0800000\n")
    assert symbols.Table.read(root).locate([inside]) == [None]


def test_hidden_addresses(tmp_path):
    text = "".join(f"{0:016x} T name{n}\n" for n in range(50))
    write(tmp_path, "proc/kallsyms", text)
    assert symbols.addresses_hidden(tmp_path)
    assert symbols.find(["name7"], tmp_path)["name7"][0].address == 0
    table = symbols.Table.read(tmp_path)
    assert (len(table), table.locate([5])) == (0, [None])


def test_shown_addresses(root):
    assert not symbols.addresses_hidden(root)


def test_empty(tmp_path):
    write(tmp_path, "proc/kallsyms", "")
    assert symbols.find(["a"], tmp_path) == {}
    assert len(symbols.Table.read(tmp_path)) == 0


def test_no_proc(tmp_path):
    with pytest.raises(OSError):
        symbols.find(["a"], tmp_path)


def test_modules(tmp_path):
    assert symbols.modules(tmp_path) == {}
    write(
        tmp_path,
        "proc/modules",
        "vgem 16384 0 - Live 0xffffffffc0710000\n"
        "drm 704512 5 vgem,drm_kms_helper, Live 0x0000000000000000\n"
        "nvidia 9001 - - Loading 0x0000000000000000 (POE)\n",
    )
    found = symbols.modules(tmp_path)
    assert found["vgem"] == symbols.Module("vgem", 16384, 0, "Live", 0xFFFFFFFFC0710000)
    assert (found["drm"].users, found["nvidia"].state) == (5, "Loading")


def test_this_kernel():
    assert "dma_buf_export" in symbols.find(["dma_buf_export"])
