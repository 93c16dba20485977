# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a trace: names, exits, and a row of counters each."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.model.objects import PROCESS_COUNTS, Process, name
from dmabuf_tool.model.store import Index, Store, add_counts, set_latest
from dmabuf_tool.schema import Events

MAX_PROCESSES: Final = 1 << 14
MAX_EXITS: Final = 1 << 16


class Processes:
    """Processes by tgid. A tgid may come again after its exit: exits are kept with their time."""

    def __init__(self) -> None:
        self.by_tgid: dict[int, Process] = {}
        self.counts = Store(PROCESS_COUNTS)
        self.untracked = 0
        self._exits: dict[int, list[int]] = {}

    def see(self, events: Events) -> None:
        """Take the processes of a batch: names and counters."""
        if not len(events):
            return
        tgids = np.ascontiguousarray(events["tgid"])
        _, first = np.unique(tgids, return_index=True)
        new = []
        for place in first.tolist():
            tgid = int(tgids[place])
            process = self.by_tgid.get(tgid)
            if process is None and len(self.by_tgid) >= MAX_PROCESSES:
                self.untracked += 1
                continue
            if process is None:
                process = self.by_tgid[tgid] = Process(tgid, _comm(events, place))
                new.append(tgid)
            if not process.main_thread:
                self._name(process, events, tgids)
        if new:
            rows = np.zeros(len(new), PROCESS_COUNTS)
            rows["id"] = new
            self.counts.add(rows)
        position = self.counts.find(tgids)
        known = position >= 0
        rows = self.counts.rows
        add_counts(rows["events"], position[known])
        set_latest(rows["last_ns"], position[known], events["ts_ns"][known])

    def _name(self, process: Process, events: Events, tgids: NDArray[np.uint32]) -> None:
        """The main thread's name is the process's, as ps shows it."""
        main = np.flatnonzero((tgids == process.tgid) & (events["tid"] == process.tgid))
        if len(main):
            process.comm = _comm(events, int(main[0]))
            process.main_thread = True

    def find(self, tgids: NDArray[np.uint32]) -> Index:
        """Positions in `counts`, -1 for processes not followed."""
        return self.counts.find(tgids)

    def exits(self, exits: list[tuple[int, int]]) -> None:
        """Take (tgid, ts_ns) of processes that ended."""
        for tgid, ts_ns in exits:
            known = self._exits.get(tgid)
            if known is None:
                if len(self._exits) < MAX_EXITS:
                    self._exits[tgid] = [ts_ns]
            elif ts_ns not in known and len(known) < 64:
                known.append(ts_ns)
                known.sort()

    def exits_of(self, tgid: int) -> bool:
        """Whether any process with this tgid is known to have ended."""
        return tgid in self._exits

    def exit_after(self, tgid: int, ts_ns: int) -> int | None:
        """When the process that had this tgid at a time ended; None if it is not known to have."""
        for exited in self._exits.get(tgid, ()):
            if exited >= ts_ns:
                return exited
        return None

    def comm(self, tgid: int) -> str:
        """Name of a process, "" if it is not known."""
        process = self.by_tgid.get(tgid)
        return process.comm if process is not None else ""


def _comm(events: Events, place: int) -> str:
    return name(events["comm"][place])
