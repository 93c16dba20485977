# SPDX-License-Identifier: GPL-2.0-or-later
"""Sites: the few places all attachments come from, and their limits as a table to index.

A mapping's row holds the number of its site, so a rule compares a whole batch with the limits
in force by one gather, and groups what it found by cause without looking at objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.constraints import (
    EFFECTIVE,
    NO_LIMIT,
    Configured,
    Effective,
    Limits,
    Source,
    effective,
    effective_row,
)
from dmabuf_tool.model.frameworks import UNKNOWN, Importer, framework_of
from dmabuf_tool.model.objects import Device, Site
from dmabuf_tool.model.store import Rows

MAX_SITES: Final = 1 << 16

# What is in force where nothing is known: nothing, so that nothing can be broken.
_FREE: Final = Effective(
    NO_LIMIT,
    Source.NONE,
    0xFFFF_FFFF,
    Source.NONE,
    NO_LIMIT,
    Source.NONE,
    0,
    Source.NONE,
    0,
    Source.NONE,
    True,
    Source.NONE,
    False,
    Source.NONE,
)

Configure = Callable[[Device], Configured | None]
"""The limits a user configured for a device."""


class Sites:
    """All sites seen; site 0 stands for attachments nothing is known of."""

    def __init__(self, configure: Configure | None = None) -> None:
        self._configure = configure
        unknown = Site(0, 0, "", None, UNKNOWN, 0, Limits(0), _FREE)
        self._sites = [unknown]
        self._aligned: list[Site] = []
        self._known: dict[tuple[Limits, Importer | None, str, int], Site] = {}
        self._rows: Rows = np.zeros(16, EFFECTIVE)
        self._rows[0] = effective_row(_FREE, unknown.limits)
        self.domains: NDArray[np.uint32] = np.zeros(16, np.uint32)
        """The device's IOMMU domain as of the attach, indexed by site."""
        self.untracked = 0
        """Attachments that got site 0 because there were too many sites."""

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, number: int) -> Site:
        return self._sites[number]

    def configured_align(self) -> list[Site]:
        """The sites of devices whose alignment a user configured."""
        return self._aligned

    @property
    def effective(self) -> Rows:
        """The limits in force, a row a site (`constraints.EFFECTIVE`), indexed by site."""
        return self._rows[: len(self._sites)]

    def intern(
        self, device: Device | None, importer: Importer | None, exporter: str, tgid: int
    ) -> Site:
        """The site of an attachment made now."""
        limits = device.limits if device is not None else None
        if device is None or limits is None:
            return self._sites[0]
        key = (limits, importer, exporter, tgid)
        site = self._known.get(key)
        if site is not None:
            return site
        if len(self._sites) >= MAX_SITES:
            self.untracked += 1
            return self._sites[0]
        framework = framework_of(importer, limits.driver)
        configured = self._configure(device) if self._configure is not None else None
        value = effective(limits, framework, configured)
        site = Site(len(self._sites), device.id, exporter, importer, framework, tgid, limits, value)
        if len(self._sites) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(len(self._rows), EFFECTIVE)])
            self.domains = np.concatenate([self.domains, np.zeros(len(self.domains), np.uint32)])
        self._rows[len(self._sites)] = effective_row(value, limits)
        self.domains[len(self._sites)] = limits.domain
        self._sites.append(site)
        if value.align_source is Source.CONFIGURED:
            self._aligned.append(site)
        self._known[key] = site
        return site
