# SPDX-License-Identifier: GPL-2.0-or-later
import os
from types import SimpleNamespace

import pytest
from tree import link, write

from dmabuf_tool.kernel import devices, iommu


@pytest.fixture
def root(tmp_path):
    """A GPU behind an IOMMU, a bridge, a driverless function, a platform camera, a clock."""
    gpu = "sys/devices/pci0000:00/0000:00:06.0"
    for path, kind, bits in (
        (gpu, "0x038000", "64"),
        ("sys/devices/pci0000:00/0000:00:01.0", "0x060400", "32"),
        ("sys/devices/pci0000:00/0000:00:03.0", "0x00ff00", "28"),
    ):
        write(tmp_path, f"{path}/class", kind + "\n")
        write(tmp_path, f"{path}/dma_mask_bits", bits + "\n")
        write(tmp_path, f"{path}/consistent_dma_mask_bits", "32\n")
        link(tmp_path, f"{path}/subsystem", "../../../bus/pci")
        link(tmp_path, f"sys/bus/pci/devices/{path[-12:]}", "/" + path)
    link(tmp_path, f"{gpu}/driver", "../../../bus/pci/drivers/virtio-pci")
    link(tmp_path, "sys/devices/pci0000:00/0000:00:01.0/driver", "../drivers/pcieport")
    link(tmp_path, f"{gpu}/iommu_group", "../../../kernel/iommu_groups/6")
    link(tmp_path, f"{gpu}/iommu", "../../virtual/iommu/dmar0")
    for node in ("card1", "renderD129"):
        link(tmp_path, f"{gpu}/drm/{node}/device", f"/{gpu}")
        link(tmp_path, f"sys/class/drm/{node}", f"/{gpu}/drm/{node}")
    write(tmp_path, "sys/class/drm/version", "drm 1.1.0 20060810\n")
    link(tmp_path, "sys/class/drm/card1-Virtual-1/device", f"/{gpu}/drm/card1")
    for name, driver in (("camera.0", "ov"), ("clock.1", "clk")):
        path = f"sys/devices/platform/{name}"
        write(tmp_path, f"{path}/uevent")
        link(tmp_path, f"{path}/subsystem", "../../../bus/platform")
        link(tmp_path, f"{path}/driver", f"../../../bus/platform/drivers/{driver}")
        link(tmp_path, f"sys/bus/platform/devices/{name}", "/" + path)
    link(tmp_path, "sys/class/video4linux/video0/device", "/sys/devices/platform/camera.0")
    groups = "sys/kernel/iommu_groups/6"
    write(tmp_path, f"{groups}/type", "DMA-FQ\n")
    write(tmp_path, f"{groups}/devices/0000:00:06.0")
    write(
        tmp_path,
        f"{groups}/reserved_regions",
        "0x0000000000000000 0x0000000000ffffff direct-relaxable\n"
        "0x00000000fee00000 0x00000000feefffff msi\n",
    )
    write(tmp_path, "sys/class/iommu/dmar0/uevent")
    return tmp_path


def test_those_that_matter_with_nodes_first(root):
    assert [device.name for device in devices.devices(root)] == ["0000:00:06.0", "camera.0"]


def test_all(root):
    assert {device.name for device in devices.devices(root, every=True)} == {
        *("0000:00:06.0", "0000:00:01.0", "0000:00:03.0", "camera.0", "clock.1")
    }


def test_a_gpu(root):
    gpu = devices.devices(root)[0]
    assert (gpu.bus, gpu.driver, gpu.nodes) == ("pci", "virtio-pci", ("card1", "renderD129"))
    assert (gpu.dma_mask, gpu.coherent_dma_mask) == (2**64 - 1, 2**32 - 1)
    assert (gpu.iommu, gpu.iommu_group, gpu.domain_type) == ("dmar0", 6, "DMA-FQ")


def test_bars_are_the_first_six_resources_that_are_memory(root):
    empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    lines = [
        "0x00000000febc0000 0x00000000febdffff 0x0000000000040200\n",
        "0x000000000000c000 0x000000000000c03f 0x0000000000040101\n",  # ports
        *[empty] * 2,
        "0x0000004000000000 0x000000400fffffff 0x000000000014220c\n",
        empty,
        "0x00000000feb80000 0x00000000febbffff 0x0000000000046200\n",  # the ROM
    ]
    write(root, "sys/devices/pci0000:00/0000:00:06.0/resource", "".join(lines))
    gpu = devices.devices(root)[0]
    assert gpu.bars == ((0, 0xFEBC0000, 0xFEBDFFFF), (4, 0x40_0000_0000, 0x40_0FFF_FFFF))
    write(root, "sys/devices/pci0000:00/0000:00:06.0/resource", "none\n")
    assert devices.devices(root)[0].bars == ()


def test_a_platform_device_has_no_limits_in_sysfs(root):
    camera = devices.devices(root)[1]
    assert (camera.bus, camera.dma_mask, camera.iommu_group, camera.domain_type) == (
        *("platform", None, None, None),
    )


def test_select_by_name_and_node(root):
    found = devices.devices(root, every=True)
    assert [device.name for device in devices.select(found, ["video0"])] == ["camera.0"]
    assert len(devices.select(found, ["0000:00:0*"])) == 3
    assert devices.select(found, ["nope"]) == ()


def _arch(monkeypatch, name):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=name))


def test_coherence_on_x86(root, monkeypatch):
    _arch(monkeypatch, "x86_64")
    assert all(device.coherent for device in devices.devices(root))


def test_coherence_from_a_device_tree(root, monkeypatch):
    _arch(monkeypatch, "aarch64")
    assert [device.coherent for device in devices.devices(root)] == [None, None]
    base = "sys/firmware/devicetree/base"
    for node in (base, f"{base}/soc", f"{base}/soc/camera", f"{base}/soc/pcie"):
        write(root, f"{node}/name")
    write(root, f"{base}/soc/pcie/dma-coherent")
    link(root, "sys/devices/platform/camera.0/of_node", f"/{base}/soc/camera")
    link(root, "sys/devices/pci0000:00/of_node", f"/{base}/soc/pcie")
    gpu, camera = devices.devices(root)
    assert (gpu.coherent, camera.coherent) == (True, False)
    write(root, f"{base}/soc/dma-coherent")
    assert devices.devices(root)[1].coherent
    write(root, f"{base}/soc/camera/dma-noncoherent")
    assert devices.devices(root)[1].coherent is False


def test_groups(root):
    (group,) = iommu.groups(root).values()
    assert (group.id, group.type, group.devices) == (6, "DMA-FQ", ("0000:00:06.0",))
    assert group.reserved == (
        iommu.Region(0, 0xFFFFFF, "direct-relaxable"),
        iommu.Region(0xFEE00000, 0xFEEFFFFF, "msi"),
    )
    assert iommu.units(root) == ("dmar0",)


def test_nothing_there(tmp_path):
    assert devices.devices(tmp_path) == ()
    assert iommu.groups(tmp_path) == {}
    assert iommu.units(tmp_path) == ()
