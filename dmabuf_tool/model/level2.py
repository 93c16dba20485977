# SPDX-License-Identifier: GPL-2.0-or-later
"""Level 2, one change at a time, in the order of the stream: what is special, and what went wrong.

What is neither goes by bulk.py, to the same effect.
"""

from __future__ import annotations

from typing import Any, Final

from dmabuf_tool.model.contexts import GPU_VM, Context
from dmabuf_tool.model.hazards import Hazard, What
from dmabuf_tool.model.level_state import MAX_RANGES, LevelState
from dmabuf_tool.model.mappings import MAPPING
from dmabuf_tool.model.matching import DMA, UNKNOWN
from dmabuf_tool.model.ranges import Range
from dmabuf_tool.schema import VIEWS, Flag

_IOMMU_NAMES: Final = VIEWS["iommu"].names or ()
_MAPPING_NAMES: Final = MAPPING.names or ()


class Level2:
    """Changes of `LevelState`."""

    def __init__(self, state: LevelState) -> None:
        self._state = state

    def map(
        self,
        context: Context,
        fresh: Range,
        *,
        nested: bool = False,
        pageless: bool = False,
        goes_on: bool = True,
    ) -> None:
        """A range is mapped. `goes_on`: nothing happened in the context since its last map."""
        state, ranges, size = self._state, context.ranges, fresh.end - fresh.start
        slot = context.last if goes_on else -1
        if ranges.meets(fresh.start, fresh.end):
            for old, part, _ in self.cut(context, fresh.start, fresh.end, fresh.ts_ns, fresh.tgid):
                self._twice(context, old, part, fresh, 0)
            slot = -1
        context.bytes += size
        last = state.ranges.get(slot) if slot >= 0 else None
        if last is not None and fresh.follows(last):
            # One of many calls for one scattered buffer.
            ranges.extend(slot, fresh.end)
            last.end = fresh.end
            state.usage.add(last, size, 0, nested, pageless)
            return
        if len(state.ranges) >= MAX_RANGES:
            state.untracked += 1
            return
        context.last = ranges.add(fresh)
        context.mapped += 1
        state.bound([fresh.attachment])
        state.count_one(fresh, 1)
        state.usage.add(fresh, size, 1, nested, pageless)

    def cut(
        self, context: Context, start: int, end: int, ts_ns: int, tgid: int
    ) -> list[tuple[Range, Range, list[Range]]]:
        """Take start..end out of a context; as Ranges.cut."""
        state = self._state
        context.last = -1
        gone = context.ranges.cut(start, end)
        for old, part, rest in gone:
            ended = state.stale.get(old.mapping)
            for one in rest:
                state.count_one(one, 1)
            state.count_one(old, -1)
            state.removed.add(part, ts_ns, tgid, state.level1_of(part))
            if ended is not None:
                state.tell(
                    What.STALE_ENDED, ts_ns, context, part, severe=state.is_nested(part),
                    stale_ns=max(0, ts_ns - ended),
                )  # fmt: skip
        return gone

    def _twice(self, context: Context, old: Range, part: Range, fresh: Range, result: int) -> None:
        again = old.buffer == fresh.buffer and old.offset - old.start == fresh.offset - fresh.start
        if again and context.kind == GPU_VM and not result:
            return  # bound once more to the same: an update of its flags
        # iommu_map() is no update: the one unmap that belongs to it takes away both.
        over = again and not result
        self._state.tell(
            What.TWICE, fresh.ts_ns, context, part, severe=not (result or again),
            detail="one range over itself" if over else "one address", result=result,
            old_buffer=old.buffer, new_buffer=fresh.buffer,
        )  # fmt: skip

    def refused(self, context: Context, fresh: Range, result: int) -> None:
        """A map failed: is something mapped there already?"""
        old = context.ranges.first(fresh.start, fresh.end)
        if old is not None:
            part = old.part(max(fresh.start, old.start), min(fresh.end, old.end))
            self._twice(context, old, part, fresh, result)

    # What the stream says, as rows of values

    def on_told(self, row: tuple[int, int]) -> None:
        """A context's map told its device: (context, device)."""
        number, device = row
        context = self._state.contexts.live.get(number)
        if context is not None:
            context.device = context.device or device

    def on_piece(self, row: tuple[Any, ...]) -> None:
        """A part of a map in a private domain that is a buffer's: a RANGE row's values and
        (nested, pageless, goes on)."""
        (number, start, last, buffer, attachment, mapping, offset, source, device, tgid, ts_ns, seq,
         nested, pageless, goes_on) = row  # fmt: skip
        context = self._state.contexts.live.get(number)
        if context is not None:
            fresh = Range(number, start, last + 1, buffer, attachment, mapping, offset, source,
                          device, tgid or context.tgid, ts_ns, seq)  # fmt: skip
            self.map(context, fresh, nested=nested, pageless=pageless, goes_on=goes_on)

    def on_unmap(self, row: tuple[int, ...]) -> None:
        """An unmap in a private domain.

        What the IOMMU driver returns says little: VT-d counts holes as unmapped
        (drivers/iommu/intel/iommu.c, intel_iommu_unmap()). Where all that was ever mapped in the
        context is known, that decides.
        """
        number, start, size, done, ts_ns, tgid, seq = row
        context = self._state.contexts.live.get(number)
        if context is None:
            return
        tgid = tgid or context.tgid
        done = min(done, size)
        about = context.ranges.at(start)
        gone = self.cut(context, start, start + done, ts_ns, tgid) if done else []
        met = sum([part.end - part.start for _, part, _ in gone])
        context.other_bytes += met
        if context.born_ns and seq < context.other_seq:
            done = min(met, done)
        if done == size:
            return
        if about is None:
            nowhere = Range(number, start, start + size, 0, 0, 0, 0, UNKNOWN, context.device, tgid,
                            ts_ns, seq)  # fmt: skip
            about = gone[0][1] if gone else nowhere
        self._state.tell(
            What.PARTIAL if done else What.ELSEWHERE, ts_ns, context, about, severe=not done,
            detail="" if done else "an address where nothing is mapped",
            at=start, asked=size, unmapped=done,
        )  # fmt: skip

    def on_refused(self, row: tuple[Any, ...]) -> None:
        """A map in a private domain that failed: an IOMMU_MAP event's values."""
        event = dict(zip(_IOMMU_NAMES, row, strict=True))
        context = self._state.contexts.live.get(event["domain"])
        if context is not None:
            where = Range(context.id, event["iova"], event["iova"] + event["size"], 0, 0, 0, 0,
                          UNKNOWN, context.device, event["tgid"], event["ts_ns"], 0)  # fmt: skip
            self.refused(context, where, event["result"])

    def on_end(self, row: tuple[Any, ...]) -> None:
        """A level-1 mapping ended: a MAPPING row's values."""
        state, ended = self._state, dict(zip(_MAPPING_NAMES, row, strict=True))
        if ended["id"] in state.on:
            state.stale[ended["id"]] = ended["end_ns"]
        told = state.invalidated.get(ended["buffer"], ())
        since = next((ts for seq, ts in told if ended["seq"] < seq < ended["end_seq"]), 0)
        attachment = state.model.registry.attachments.get(ended["attachment"])
        if not since or attachment is None or not attachment.flags & Flag.DYNAMIC:
            return
        hazard = Hazard(What.REVOKE_LATE, ended["end_ns"], None, ended["buffer"], ended["device"],
                        ended["id"], ended["site"], ended["tgid"])  # fmt: skip
        hazard.numbers = {"late_ns": max(0, ended["end_ns"] - since), "size": ended["size"]}
        state.hazards.append(hazard)

    def on_reuse(self, row: tuple[int, ...]) -> None:
        """A new mapping has DMA addresses of one that ended: does a range still target them?"""
        old, new, low, high, offset = row
        state = self._state
        fresh = state.spans.row(new)
        if old not in state.stale or fresh is None:
            return
        ended, ts_ns = state.stale[old], int(fresh["ts_ns"])
        for one in sorted(state.on_top(old), key=lambda one: (one.context, one.start)):
            first, last = max(one.offset, offset), min(one.offset + one.size, offset + high - low)
            if one.source != DMA or first >= last:
                continue
            shift = one.start - one.offset
            hazard = state.tell(
                What.REUSED, ts_ns, state.contexts.find(one.context),
                one.part(first + shift, last + shift), severe=True,
                dma_address=low + first - offset, old_buffer=one.buffer,
                stale_ns=max(0, ts_ns - ended),
            )  # fmt: skip
            hazard.about(fresh)
