# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of the kernel log in the event ring become faults, in their place and with their time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dmabuf_tool.kernel.faults import READ, SMMUV3, VTD
from dmabuf_tool.probes.kernel_log import PARTS, KernelLog
from dmabuf_tool.schema import EVENT, Kind, view

DMAR = (
    "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xfff00000 "
    "[fault reason 0x06] PTE Read access is not set, and more than there is room for"
)
SMMU = (
    "arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000001800000010",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000800000000",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x00000000fff00000",
    "arm-smmu-v3 arm-smmu-v3.0.auto: \t0x0000000000000000",
)


def line(text: str, ts_ns: int) -> np.ndarray:
    """As the probe sends it."""
    events = np.zeros(PARTS, EVENT)
    events["kind"], events["ts_ns"], events["tgid"], events["comm"] = Kind.LOG, ts_ns, 7, b"irq"
    data = text.encode()
    texts = view(events, "text")["text"]
    room = texts.dtype.itemsize
    for part in range(PARTS):
        texts[part] = data[part * room : (part + 1) * room]
    return events


def other(ts_ns: int) -> np.ndarray:
    events = np.zeros(1, EVENT)
    events["kind"], events["ts_ns"] = Kind.UNMAP, ts_ns
    return events


def test_a_fault_stands_where_its_line_was() -> None:
    noise = line("DMAR: DRHD: handling fault status reg 2", 3)
    got = KernelLog().take(np.concatenate([other(2), noise, line(DMAR, 4), other(5)]))
    assert got["kind"].tolist() == [Kind.UNMAP, Kind.FAULT, Kind.UNMAP]
    assert got["ts_ns"].tolist() == [2, 4, 5]
    row = view(got[1:2], "l2")[0]
    told = [int(row[name]) for name in ("address", "offset", "provider", "owner", "client")]
    assert told == [0xFFF00000, 6, VTD, 0x18 + 1, READ]
    # Who was interrupted has nothing to do with it.
    assert (int(row["tgid"]), bytes(row["comm"]), int(row["stack"])) == (0, b"", -1)


def test_a_fault_of_several_lines_in_several_drains() -> None:
    log = KernelLog()
    drains = [log.take(line(text, ts)) for ts, text in enumerate(SMMU, 10)]
    assert [len(one) for one in drains] == [0, 0, 0, 1, 0]
    row = view(drains[3], "l2")[0]
    assert (int(row["ts_ns"]), int(row["provider"])) == (10, SMMUV3)
    assert (int(row["address"]), int(row["owner"])) == (0xFFF00000, 0x18 + 1)


def test_a_line_with_the_time_before_it() -> None:
    got = KernelLog().take(line(f"[   12.345678] {DMAR}", 4))
    assert got["kind"].tolist() == [Kind.FAULT]


AMD = (
    "amdgpu 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0xfff00000 "
    "flags=0x0020]"
)


def raised(ts_ns: int, address: int = 0xFFF00000) -> np.ndarray:
    """io_page_fault, of no device."""
    events = np.zeros(1, EVENT)
    row = view(events, "l2")[0]
    row["kind"], row["ts_ns"], row["address"], row["provider"] = Kind.FAULT, ts_ns, address, 5
    return events


def test_a_fault_that_is_raised_and_printed_is_one() -> None:
    got = KernelLog().take(np.concatenate([raised(4), other(5), line(AMD, 6), other(7)]))
    assert got["kind"].tolist() == [Kind.FAULT, Kind.UNMAP, Kind.UNMAP]
    row = view(got[:1], "l2")[0]
    assert [int(row[name]) for name in ("provider", "owner")] == [5, 0x300 + 1]
    log = KernelLog()
    assert [len(log.take(one)) for one in (raised(4), line(AMD, 6))] == [1, 0]


def test_other_faults_are_others() -> None:
    for before in (raised(4, 0xFFF01000), raised(4_000_000), other(4)):
        late = line(AMD, 3_000_000)
        got = KernelLog().take(np.concatenate([before, late]))
        assert got["kind"].tolist()[-1] == Kind.FAULT and len(got) == 2
        assert int(view(got[1:], "l2")[0]["provider"]) == 2


def test_what_is_no_log_is_not_touched() -> None:
    events = other(1)
    assert KernelLog().take(events) is events


def test_parts_are_the_probes() -> None:
    source = (Path(__file__).parents[3] / "bpf/iommu.bpf.c").read_text()
    found = re.search(r"#define LOG_PARTS (\d+)", source)
    assert found is not None
    assert int(found[1]) == PARTS
