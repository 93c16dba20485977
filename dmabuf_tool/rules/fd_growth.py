# SPDX-License-Identifier: GPL-2.0-or-later
"""fd-growth: a process holds more and more buffers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dmabuf_tool.rules.base import Rule, Severity, Threshold, Told
from dmabuf_tool.rules.findings import Subject

if TYPE_CHECKING:
    from dmabuf_tool.model.model import Model
    from dmabuf_tool.rules.findings import Findings

RULE = Rule(
    id="fd-growth",
    group="C",
    severity=Severity.WARNING,
    title="a process holds more and more buffers",
    holds="Over five snapshots of /proc and more the number of buffers a process holds never "
    "fell, and grew by grow_count and more.",
    why="Descriptors that are not closed keep their buffers: the process runs out of descriptors, "
    "the machine out of memory.",
    source="/proc/PID/fdinfo of dma-bufs (drivers/dma-buf/dma-buf.c, dma_buf_show_fdinfo()).",
    advice="Look for descriptors the process does not close after import or after passing them on.",
    example="weston (pid 312) holds 212 buffers, 140 more than 12.0 s ago and never fewer between",
    thresholds=(Threshold("grow_count", 64, "buffers", "growth that is told"),),
)

SNAPSHOTS = 5


def check_state(model: Model, found: Findings) -> None:
    """Look at the last snapshots."""
    latest = model.holders.latest
    if latest is None or len(model.holders.history) < SNAPSHOTS:
        return
    limit = found.threshold(RULE, "grow_count")
    for pid in latest.buffers_of():
        series = _growing(model.holders.series(pid))
        if len(series) >= SNAPSHOTS and series[-1][1] - series[0][1] >= limit:
            found.case(
                RULE,
                (pid,),
                partial(_tell, model, found, pid, series),
                when=(series[0][0], series[-1][0]),
                score=float(series[-1][1] - series[0][1]),
            )


def _growing(series: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The end of a series over which the number never falls."""
    start = len(series) - 1
    while start > 0 and series[start - 1][1] <= series[start][1]:
        start -= 1
    return series[start:]


def _tell(
    model: Model, found: Findings, pid: int, series: list[tuple[int, int]]
) -> tuple[Told, Subject]:
    (first_ns, first), (last_ns, last) = series[0], series[-1]
    comm = model.processes.comm(pid) or "process"
    told = Told(
        f"{comm} (pid {pid}) holds {last} buffers, {last - first} more than "
        f"{(last_ns - first_ns) / 1e9:.1f} s ago and never fewer between",
        {
            "buffers_held": last,
            "grown_by": last - first,
            "over_ns": last_ns - first_ns,
            "snapshots": len(series),
            "grow_count": found.threshold(RULE, "grow_count"),
        },
    )
    return told, Subject(site=model.registry.sites[0], tgid=pid)
