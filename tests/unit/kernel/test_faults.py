# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults in the formats of the kernel's IOMMU drivers."""

from __future__ import annotations

import pytest

from dmabuf_tool.kernel.faults import (
    ACCESS,
    AMD,
    READ,
    SMMUV2,
    SMMUV3,
    VTD,
    WRITE,
    Fault,
    Parser,
)
from dmabuf_tool.model.faults import pci_name

EDU = 0x18


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xfff00000 "
            "[fault reason 0x06] PTE Read access is not set",
            Fault(7, VTD, 0xFFF00000, EDU, READ, 6),
        ),
        (
            "DMAR: [DMA Write] Request device [3a:00.1] PASID ffffffff fault addr fff00000 "
            "[fault reason 05] PTE Write access is not set",
            Fault(7, VTD, 0xFFF00000, 0x3A01, WRITE, 5),
        ),
        (
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:03.0 domain=0x000a "
            "address=0xfff00000 flags=0x0020]",
            Fault(7, AMD, 0xFFF00000, EDU, WRITE, 0x20),
        ),
        (
            "snd_hda_intel 0000:0b:00.4: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 "
            "address=0xfff00000 flags=0x0000]",
            Fault(7, AMD, 0xFFF00000, 0xB04, READ),
        ),
        (
            "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_TRANSLATION client: 0000:00:03.0 sid: 0x18 "
            "ssid: 0x0 iova: 0xfff00000 ipa: 0x0",
            Fault(7, SMMUV3, 0xFFF00000, EDU, ACCESS),
        ),
        (
            "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xfff00000, "
            "fsynr=0x11, cbfrsynra=0x18, cb=5",
            Fault(7, SMMUV2, 0xFFF00000, EDU, WRITE, 0x402),
        ),
        ("DMAR: DRHD: handling fault status reg 2", None),
        ("edu 0000:00:03.0: fault addr 0x1", None),
    ],
)
def test_formats(line, fault):
    assert Parser().feed(line, 7) == fault


def test_smmuv3_record_of_several_lines():
    parser = Parser()
    begin = "arm-smmu-v3 arm-smmu-v3.0.auto: "
    assert parser.feed(begin + "event 0x10 received:", 1) is None
    assert parser.feed(begin + "\t0x0000001800000010", 2) is None
    assert parser.feed(begin + "\t0x0000000800000000", 3) is None
    wanted = Fault(1, SMMUV3, 0xFFF00000, EDU, READ, 0x10)
    assert parser.feed(begin + "\t0x00000000fff00000", 4) == wanted
    assert parser.feed(begin + "\t0x0000000000000000", 5) is None


def test_smmuv3_event_without_an_address():
    parser = Parser()
    parser.feed("arm-smmu-v3 x: event 0x02 received:", 1)
    lines = ["arm-smmu-v3 x: \t0x0000001800000002"] * 4
    assert [parser.feed(line, 1) for line in lines] == [None] * 4


def test_names_of_requesters():
    assert pci_name(EDU + 1) == "0000:00:03.0"
    assert pci_name((1 << 16 | 0x3A01) + 1) == "0001:3a:00.1"
    assert pci_name(0) == ""
