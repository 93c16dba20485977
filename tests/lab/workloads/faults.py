# SPDX-License-Identifier: GPL-2.0-or-later
"""IOMMU faults as VT-d and SMMUv3 report them: lines of the kernel's log."""

from __future__ import annotations

import os
import re
import time

_VTD = re.compile(r"DMAR: \[DMA (\w+).*Request device \[([0-9a-f:.]+)\] fault addr 0x([0-9a-f]+)")
_SMMU_EVENT = re.compile(r"arm-smmu-v3 \S+: event 0x10 received|event: F_TRANSLATION")


class FaultLog:
    """Follows /dev/kmsg from now on."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self) -> list[str]:
        """New lines that tell of a fault."""
        found = []
        while True:
            try:
                text = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:  # overwritten before it was read
                continue
            if _VTD.search(text) or _SMMU_EVENT.search(text):
                found.append(text.partition(";")[2].strip())

    def wait(self, seconds: float = 3) -> list[str]:
        """The lines of the next fault; empty if there was none in that time."""
        end = time.monotonic() + seconds
        while not (found := self.lines()) and time.monotonic() < end:
            time.sleep(0.05)
        return found
