# SPDX-License-Identifier: GPL-2.0-or-later
"""What the events of a stream are called, and who is who in them, learned event by event.

The first events of a stream introduce its buffers and devices; the renderers of single
events need no more state than this. Everything learned about a buffer goes when it is released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.kernel.text import decode
from dmabuf_tool.schema import VIEWS, Events, Flag, Kind

EVENT_NAMES: Final[dict[Kind, str]] = {
    Kind.BUFFER: "buffer",
    Kind.EXPORT: "export",
    Kind.RELEASE: "release",
    Kind.ATTACH: "attach",
    Kind.DETACH: "detach",
    Kind.MAP: "map",
    Kind.UNMAP: "unmap",
    Kind.PIN: "pin",
    Kind.UNPIN: "unpin",
    Kind.CPU_BEGIN: "cpu-access",
    Kind.CPU_END: "cpu-access",
    Kind.INVALIDATE: "invalidate",
    Kind.DEVICE: "device",
    Kind.DEVICE_GONE: "device-gone",
    Kind.DOMAIN: "domain",
    Kind.DOMAIN_ATTACH: "domain-attach",
    Kind.DOMAIN_FREE: "domain-free",
    Kind.IOMMU_MAP: "iommu-map",
    Kind.IOMMU_UNMAP: "iommu-unmap",
    Kind.BOUNCE: "bounce",
    Kind.CONTEXT: "context",
    Kind.CONTEXT_FREE: "context-free",
    Kind.LEVEL2_MAP: "level2-map",
    Kind.LEVEL2_UNMAP: "level2-unmap",
    Kind.FAULT: "fault",
    Kind.RELEASED: "released",
}
"""Events as lines and JSON name them; NAME_* events introduce and are not shown."""


def kinds_told(events: Events) -> NDArray[np.uint16]:
    """The kinds as which events are named, shape (n,).

    A map of the IOMMU API outside of dma-buf calls is in a driver's own domain (bpf/iommu.bpf.c,
    is_not_ours()): level 2, as a GPU VM's is.
    """
    kinds: NDArray[np.uint16] = events["kind"].copy()
    outside = (events["flags"] & Flag.INSIDE) == 0
    kinds[outside & (kinds == Kind.IOMMU_MAP)] = Kind.LEVEL2_MAP
    kinds[outside & (kinds == Kind.IOMMU_UNMAP)] = Kind.LEVEL2_UNMAP
    return kinds


@dataclass(slots=True)
class Buffer:
    """What events say about a buffer; 0 and "" until one does."""

    ino: int = 0
    exporter: str = ""
    name: str = ""


@dataclass(slots=True)
class Device:
    """What events say about a device; `domain` is the id of the one it is in."""

    name: str = ""
    driver: str = ""
    bus: str = ""
    domain: int = 0


SELF_DESCRIBING: Final = frozenset(
    {Kind.BUFFER, Kind.EXPORT, Kind.RELEASE, Kind.RELEASED, Kind.ATTACH, Kind.DETACH}
)

_TEACHING: Final = frozenset(
    {
        Kind.BUFFER,
        Kind.EXPORT,
        Kind.ATTACH,
        Kind.NAME_BUFFER,
        Kind.NAME_DEVICE,
        Kind.NAME_DRIVER,
        Kind.NAME_BUS,
        Kind.DEVICE,
        Kind.DOMAIN_ATTACH,
    }
)


@dataclass(slots=True)
class Names:
    """Buffers and devices seen so far, by id. Texts are as they came: not safe."""

    buffers: dict[int, Buffer] = field(default_factory=dict)
    devices: dict[int, Device] = field(default_factory=dict)

    teaching: frozenset[Kind] = _TEACHING
    """The kinds that `learn` takes something from."""

    def learn(self, event: Any) -> None:
        """Take what one event (a numpy record of EVENT) of a teaching kind says."""
        kind, buffer, device = int(event["kind"]), int(event["buffer"]), int(event["device"])
        if kind in (Kind.BUFFER, Kind.EXPORT, Kind.ATTACH):
            self._learn_buffer(buffer, _as(event, "buf"))
        elif kind == Kind.NAME_BUFFER:
            self.buffers.setdefault(buffer, Buffer()).name = _text(event)
        elif device:
            self._learn_device(kind, self.devices.setdefault(device, Device()), event)

    def forget(self, buffer: int) -> None:
        """A buffer was released; its id does not come again."""
        self.buffers.pop(buffer, None)

    def _learn_buffer(self, buffer: int, event: Any) -> None:
        if buffer:
            known = self.buffers.setdefault(buffer, Buffer())
            known.ino, known.exporter = int(event["ino"]), decode(bytes(event["exporter"]))

    def _learn_device(self, kind: int, device: Device, event: Any) -> None:
        if kind == Kind.NAME_DEVICE:
            device.name = _text(event)
        elif kind == Kind.NAME_DRIVER:
            device.driver = _text(event)
        elif kind == Kind.NAME_BUS:
            device.bus = _text(event)
        elif kind == Kind.DEVICE or int(event["result"]) >= 0:
            # A DOMAIN_ATTACH that was refused changes nothing.
            device.domain = int(event["domain"])


def unknown_buffer(event: Any) -> Buffer:
    """What an event of a SELF_DESCRIBING kind says of a buffer that is not known.

    A refused export never was a buffer; others may be more than the probes can number; a release
    that returns was forgotten when it began.
    """
    row = _as(event, "buf")
    return Buffer(int(row["ino"]), decode(bytes(row["exporter"])))


def _as(event: Any, payload: str) -> Any:
    return event.view(VIEWS[payload])


def _text(event: Any) -> str:
    return decode(bytes(_as(event, "text")["text"]))
