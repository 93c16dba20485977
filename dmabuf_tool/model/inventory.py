# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen beside the events of a trace: process exits, and who held which buffers.

Entries are JSON objects, live and in captures alike: {"process_exits": [[tgid, ts_ns], ...]} and
{"holders": {...}} (model/holders.py). An entry is taken after all events before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmabuf_tool.model.holders import read_snapshots
from dmabuf_tool.model.model import Model


def take(model: Model, entry: Mapping[str, Any]) -> None:
    """Give one entry to the model; what it does not know is passed over."""
    model.process_exits(_exits(entry))
    for snapshot in read_snapshots([entry]):
        model.holders.see(snapshot)


def _exits(entry: Mapping[str, Any]) -> list[tuple[int, int]]:
    pairs = entry.get("process_exits")
    return [
        (pair[0], pair[1])
        for pair in (pairs if isinstance(pairs, list) else ())
        if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
    ]
