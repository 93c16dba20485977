# SPDX-License-Identifier: GPL-2.0-or-later
"""--stacks: every call's stack leads to who called."""

from __future__ import annotations

import pytest
from matrix import KERNELS, RUNS

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.schema import Flag, Kind

TRACED = [
    *((kernel, "late") for kernel in KERNELS),
    *((kernel, "filter-device") for kernel in RUNS["filters"]),
]


@pytest.mark.parametrize(("guest", "trace"), TRACED, indirect=["guest"])
def test_every_stack_leads_to_the_importer(guest, trace):
    """A table from inside attach has its stack."""
    stacks = {}
    keys = {kind: [] for kind in (Kind.ATTACH, Kind.DETACH, Kind.MAP, Kind.UNMAP)}
    with open_capture(guest.capture(trace)) as reader:
        for batch in reader.batches():
            stacks |= batch.stacks
            for kind, found in keys.items():
                chosen = batch.events["kind"] == kind
                chosen &= (batch.events["flags"] & Flag.IN_ATTACH) == 0
                found.extend(batch.events["stack"][chosen].tolist())
    for kind, found in keys.items():
        assert found, kind
        assert all(any("[dmabuf_lab" in frame for frame in stacks[key]) for key in found), kind
