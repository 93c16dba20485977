# SPDX-License-Identifier: GPL-2.0-or-later
"""IOMMU faults out of the kernel log: Intel VT-d and SMMUv3 tell nobody else.

    VT-d     DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xfff00000 [fault
             reason 0x06] PTE Read access is not set          drivers/iommu/intel/dmar.c
    AMD-Vi   AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:14.1 domain=0x000a
             address=0xfffff000 flags=0x0020]                 drivers/iommu/amd/iommu.c
    SMMUv3   event 0x10 received: and the record's four words, up to 6.13; then
             event: F_TRANSLATION client: 0000:00:03.0 sid: 0x18 ssid: 0x0 iova: 0xfff00000 ...
                                                              drivers/iommu/arm/arm-smmu-v3/
    SMMUv2   Unhandled context fault: fsr=0x402, iova=0x00fff000, fsynr=0x11, cbfrsynra=0x18, cb=0

Lines come from the tracepoint printk:console (probes/kernel_log.py), with the time at which they
were printed. The times in the log itself are of local_clock(), which is not CLOCK_MONOTONIC and
goes by ticks where the processor's counter is not stable. The drivers limit their lines: not
every fault has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

VTD, AMD, SMMUV3, SMMUV2 = 1, 2, 3, 4
"""How a fault was told: index into model.faults.TOLD_BY."""
ACCESS, READ, WRITE = 0, 1, 2

_PCI: Final = (
    r"(?:(?P<segment>[0-9a-f]{4}):)?(?P<bus>[0-9a-f]{2}):(?P<dev>[0-9a-f]{2})\.(?P<fn>[0-7])"
)
_VTD: Final = re.compile(
    r"DMAR: .*\[DMA (?P<tried>Read|Write)(?: (?:NO_PASID|PASID (?P<pasid>\w+)))?\] "
    rf"Request device \[{_PCI}\].* fault addr (?P<address>(?:0x)?[0-9a-f]+)"
    r"(?:.*fault reason (?P<reason>(?:0x)?[0-9a-f]+))?"
)
_AMD: Final = re.compile(
    rf"(?:{_PCI}: )?AMD-Vi: Event logged \[IO_PAGE_FAULT (?:device=(?P<other>\S+) )?"
    r"(?:pasid=\S+ )?domain=\S+ address=(?P<address>0x[0-9a-f]+) flags=(?P<reason>0x[0-9a-f]+)"
)
_SMMU: Final = re.compile(
    r"event: F_(?P<what>\w+) client: (?P<client>\S+) sid: (?P<sid>0x[0-9a-f]+) "
    r"ssid: (?P<pasid>0x[0-9a-f]+) iova: (?P<address>0x[0-9a-f]+)"
)
_SMMU_BEGIN: Final = re.compile(r"event 0x(?P<what>[0-9a-f]{2}) received:")
_SMMU_WORD: Final = re.compile(r"arm-smmu-v3 \S+\s+(?P<word>0x[0-9a-f]{16})\s*$")
_SMMU2: Final = re.compile(
    r"[Uu]nhandled context fault: fsr=(?P<reason>0x[0-9a-f]+).*iova=(?P<address>0x[0-9a-f]+), "
    r"fsynr=(?P<syndrome>0x[0-9a-f]+)(?:, cbfrsynra=(?P<sid>0x[0-9a-f]+))?"
)
_PCI_NAME: Final = re.compile(_PCI)
_SMMU_FAULTS: Final = frozenset({0x10, 0x11, 0x12, 0x13})
"""F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION: events with an input address."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        ts_ns: CLOCK_MONOTONIC, of its first line.
        told_by: VTD, AMD, SMMUV3 or SMMUV2.
        address: what the device asked for.
        requester: PCI segment << 16 | bus << 8 | devfn, or a stream id; -1 unknown.
        tried: READ, WRITE or ACCESS.
        reason: the number the IOMMU gave.
        pasid: 0 for none.
    """

    ts_ns: int
    told_by: int
    address: int
    requester: int
    tried: int = ACCESS
    reason: int = 0
    pasid: int = 0


class Parser:
    """Lines of the log in, faults out: SMMUv3 takes several lines for one."""

    def __init__(self) -> None:
        self._what = self._begun_ns = 0
        self._words: list[int] = []

    def feed(self, line: str, ts_ns: int) -> Fault | None:
        """Take a line without its prefix; a fault when it completes one."""
        for parse in (_vtd, _amd, _smmu3, _smmu2):
            if (fault := parse(line, ts_ns)) is not None:
                return fault
        return self._record(line, ts_ns)

    def _record(self, line: str, ts_ns: int) -> Fault | None:
        """SMMUv3's event record as words; Arm IHI 0070, 7.3: StreamID in the upper half of the
        first, RnW in bit 35 of the second, InputAddr the third."""
        if (begin := _SMMU_BEGIN.search(line)) is not None:
            self._what, self._words, self._begun_ns = int(begin["what"], 16), [], ts_ns
            return None
        word = _SMMU_WORD.search(line)
        if word is None or self._what not in _SMMU_FAULTS:
            return None
        self._words.append(int(word["word"], 16))
        if len(self._words) < 3:
            return None
        what, self._what = self._what, 0
        first, second, address = self._words
        tried = READ if second >> 35 & 1 else WRITE
        pasid = first >> 12 & 0xFFFFF if first >> 11 & 1 else 0
        return Fault(self._begun_ns, SMMUV3, address, first >> 32, tried, what, pasid)


def _vtd(line: str, ts_ns: int) -> Fault | None:
    found = _VTD.search(line)
    if found is None:
        return None
    tried = READ if found["tried"] == "Read" else WRITE
    pasid = _hex(found["pasid"])
    return Fault(
        ts_ns, VTD, _hex(found["address"]), _requester(found), tried, _hex(found["reason"]),
        0 if pasid == 0xFFFFFFFF else pasid,
    )  # fmt: skip


def _amd(line: str, ts_ns: int) -> Fault | None:
    found = _AMD.search(line)
    if found is None:
        return None
    requester = _requester(found)
    if found["other"] and (other := _PCI_NAME.fullmatch(found["other"])):
        requester = _requester(other)
    flags = _hex(found["reason"])
    # EVENT_FLAG_RW, drivers/iommu/amd/amd_iommu_types.h: bit 5.
    return Fault(
        ts_ns, AMD, _hex(found["address"]), requester, WRITE if flags >> 5 & 1 else READ, flags
    )


def _smmu3(line: str, ts_ns: int) -> Fault | None:
    found = _SMMU.search(line)
    if found is None:
        return None
    client = _PCI_NAME.fullmatch(found["client"])
    requester = _requester(client) if client is not None else _hex(found["sid"])
    return Fault(ts_ns, SMMUV3, _hex(found["address"]), requester, pasid=_hex(found["pasid"]))


def _smmu2(line: str, ts_ns: int) -> Fault | None:
    found = _SMMU2.search(line)
    if found is None:
        return None
    # ARM_SMMU_CB_FSYNR0_WNR, drivers/iommu/arm/arm-smmu/arm-smmu.h: bit 4.
    tried = WRITE if _hex(found["syndrome"]) >> 4 & 1 else READ
    sid = _hex(found["sid"]) if found["sid"] else -1
    return Fault(ts_ns, SMMUV2, _hex(found["address"]), sid, tried, _hex(found["reason"]))


def _hex(text: str | None) -> int:
    return int(text, 16) & 0xFFFF_FFFF_FFFF_FFFF if text else 0


def _requester(found: re.Match[str]) -> int:
    if not found["bus"]:
        return -1
    place = int(found["bus"], 16) << 8 | int(found["dev"], 16) << 3 | int(found["fn"])
    return _hex(found["segment"]) << 16 | place
