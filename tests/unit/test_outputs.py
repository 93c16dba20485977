# SPDX-License-Identifier: GPL-2.0-or-later
"""Large batches are shown in pieces, and as if they were not."""

from __future__ import annotations

import pytest
from batches import Trace, pages
from two_levels import fault, translated

from dmabuf_tool.live import Request
from dmabuf_tool.outputs import _AT_ONCE, open_output
from dmabuf_tool.render.faults import attributions
from dmabuf_tool.render.jsonlines import JsonRenderer
from dmabuf_tool.render.lines import LineRenderer
from dmabuf_tool.rules.engine import Engine


def large() -> Trace:
    """Buffers that are mapped, with tables, and faults among them."""
    trace = Trace()
    device = translated(trace)
    for number in range(_AT_ONCE):
        attachment = trace.attach(trace.export(4 * 4096), device)
        trace.unmap(trace.map(attachment, pages(4)))
        trace.detach(attachment)
        trace.release(attachment.buffer)
        if number % 50 == 0:
            trace.wait(1500)
            fault(trace, device, 0x1000)
    return trace


@pytest.mark.parametrize("format", ["json", "lines"])
def test_pieces_are_the_whole(format, capsys):
    batch = large().batch()
    faults = attributions(Engine().feed(batch))
    assert max(faults) > _AT_ONCE
    open_output(Request(output_format=format, stacks=True, segments=True), 0).batch(batch, faults)
    whole = (
        JsonRenderer(stacks=True, segments=True)
        if format == "json"
        else LineRenderer(0, stacks=True)
    )
    assert capsys.readouterr().out == whole.render(batch, faults=faults)
