# SPDX-License-Identifier: GPL-2.0-or-later
"""Things that are done one by one, in the order of the stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.schema import Events, Kind


@dataclass(slots=True)
class Rare:
    """The events that are done one by one, and their places in the stream."""

    events: Events
    seq: NDArray[np.uint64]

    def told(self, *kinds: Kind) -> NDArray[np.bool_]:
        """Which are of these kinds."""
        return np.isin(self.events["kind"], kinds)


@dataclass(slots=True)
class Ops:
    """What is to be done at places of the stream; `items` are handed to `do` one by one."""

    seq: NDArray[np.uint64]
    do: Callable[[Any], None]
    items: list[Any]


def run(ops: list[Ops]) -> None:
    """Everything in order; at one place, in that of the list."""
    places = np.concatenate([one.seq for one in ops])
    which = np.repeat(np.arange(len(ops)), [len(one.seq) for one in ops]).tolist()
    items = [item for one in ops for item in one.items]
    for index in np.argsort(places, kind="stable").tolist():
        ops[which[index]].do(items[index])
