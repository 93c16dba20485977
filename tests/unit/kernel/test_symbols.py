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


def test_exists(root):
    assert symbols.exists("dma_buf_export", root) and symbols.exists("vgem_open", root)
    assert not symbols.exists("dma_buf_expor", root)  # nor a longer name's beginning
    assert not symbols.exists("T", root) and not symbols.exists("[vgem]", root)


def test_hidden_addresses(tmp_path):
    text = "".join(f"{0:016x} T name{n}\n" for n in range(50))
    write(tmp_path, "proc/kallsyms", text)
    assert symbols.addresses_hidden(tmp_path)
    assert symbols.find(["name7"], tmp_path)["name7"][0].address == 0


def test_shown_addresses(root):
    assert not symbols.addresses_hidden(root)


def test_empty(tmp_path):
    write(tmp_path, "proc/kallsyms", "")
    assert symbols.find(["a"], tmp_path) == {}


def test_no_proc(tmp_path):
    with pytest.raises(OSError):
        symbols.find(["a"], tmp_path)


def test_this_kernel():
    assert "dma_buf_export" in symbols.find(["dma_buf_export"])
