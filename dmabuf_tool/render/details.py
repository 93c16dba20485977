# SPDX-License-Identifier: GPL-2.0-or-later
"""The right half of an event's line: direction, size, entries, address, result.

Only the event itself is needed for it, so that a whole batch is formatted payload by payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmabuf_tool.kernel.errnos import errno_name
from dmabuf_tool.render.names import EVENT_NAMES
from dmabuf_tool.schema import DOMAIN_TYPE_NAMES, PAYLOAD_OF, Events, Flag, Kind, view

_DIRECTIONS: Final = ("bidi", "to  ", "from", "none")

# Flags worth a word on a line, by payload.
_WORDS: Final[Mapping[str, tuple[tuple[Flag, str], ...]]] = {
    "buf": (
        (Flag.PREEXISTING, "pre-existing"),
        (Flag.DYNAMIC, "dynamic"),
        (Flag.PEER2PEER, "peer-to-peer"),
    ),
    "map": (
        (Flag.PREEXISTING, "pre-existing"),
        (Flag.CACHED, "cached"),
        (Flag.IN_ATTACH, "in-attach"),
        (Flag.ELSEWHERE, "elsewhere"),
        (Flag.UNKNOWN_TABLE, "unknown-table"),
        (Flag.CUT, "cut"),
        (Flag.SEGMENTS_LOST, "segments-lost"),
    ),
}


def details(events: Events, wanted: NDArray[np.bool_]) -> list[str]:
    """The right half of the lines of all wanted events, "" for the others.

    Columns DIR, SIZE, NENTS, ADDRESS and RESULT of lines.COLUMNS, "-" where a kind has none.
    """
    texts = [""] * len(events)
    payloads = _PAYLOAD_NUMBER[np.minimum(events["kind"], len(_PAYLOAD_NUMBER) - 1)]
    for number, (payload, form) in enumerate(_FORMS.items()):
        rows = np.flatnonzero(wanted & (payloads == number))
        if len(rows):
            chosen = view(events[rows], payload)
            for row, text in zip(rows.tolist(), form(chosen), strict=True):
                texts[row] = text
    return texts


def human_size(size: int) -> str:
    """Bytes in at most four characters where that can be: 4096 -> "4K", 8716288 -> "8.3M"."""
    value, unit = float(size), ""
    for unit in ("", "K", "M", "G", "T", "P"):
        if value < 1024 or unit == "P":
            break
        value /= 1024
    return f"{value:.0f}{unit}" if value >= 100 or value.is_integer() else f"{value:.1f}{unit}"


def human_time(duration_ns: int) -> str:
    """Nanoseconds as "850ns", "12us", "3.4ms", "1.2s"."""
    if duration_ns < 1000:
        return f"{duration_ns}ns"
    if duration_ns < 1_000_000:
        return f"{duration_ns // 1000}us"
    if duration_ns < 1_000_000_000:
        return f"{duration_ns / 1e6:.1f}ms"
    return f"{duration_ns / 1e9:.1f}s"


class _Sizes(dict[int, str]):
    """Sizes as cells; few differ."""

    def __missing__(self, size: int) -> str:
        if len(self) > 65536:
            self.clear()
        self[size] = cell = f"{human_size(size):>4}"
        return cell


_SIZES: Final = _Sizes()


def _results(rows: Events, payload: str) -> list[str]:
    """The RESULT cells: errno, duration, words for flags; "ok" if there is nothing to say."""
    words = _WORDS.get(payload, ())
    telling = sum(flag for flag, _ in words)
    said: dict[tuple[int, int], str] = {}
    cells = []
    flags = (rows["flags"] & telling).tolist()
    for result, flag, duration in zip(
        rows["result"].tolist(), flags, rows["duration_ns"].tolist(), strict=True
    ):
        text = said.get((result, flag))
        if text is None:
            parts = [f"-{errno_name(result)}"] if result < 0 else []
            parts += [word for bit, word in words if flag & bit]
            text = said[result, flag] = " ".join(parts)
        if not duration:
            cells.append(text or "ok")
        else:
            cells.append(f"{text} {human_time(duration)}" if text else human_time(duration))
    return cells


def _map(rows: Events) -> list[str]:
    sizes = rows["size"].tolist()
    cells = []
    for kind, size, address, nents, orig, direction, dma_errno, result, text in zip(
        rows["kind"].tolist(),
        sizes,
        rows["address"].tolist(),
        rows["nents"].tolist(),
        rows["orig_nents"].tolist(),
        rows["direction"].tolist(),
        rows["dma_errno"].tolist(),
        rows["result"].tolist(),
        _results(rows, "map"),
        strict=True,
    ):
        if kind not in _WITH_TABLE or result < 0:
            entries, where = "    -", "         -"
        else:
            entries = f"{nents:>5}" if nents == orig else f"{f'{nents}/{orig}':>5}"
            where = f"{address:#10x}"
        way = _DIRECTIONS[direction] if direction < 4 and kind in _WITH_DIRECTION else "-   "
        line = f"{way} {_SIZES[size]} {entries} {where} {text}"
        if dma_errno < 0 and dma_errno != result:
            line += f" (DMA API: -{errno_name(dma_errno)})"
        if kind in _PHASES:
            line += _PHASES[kind]
        cells.append(line)
    return cells


_WITH_TABLE: Final = frozenset({Kind.MAP, Kind.UNMAP})
_WITH_DIRECTION: Final = _WITH_TABLE | {Kind.CPU_BEGIN, Kind.CPU_END}
_PHASES: Final = {Kind.CPU_BEGIN: " begin", Kind.CPU_END: " end"}
_NONE: Final = "-       -     -          -"


def _buf(rows: Events) -> list[str]:
    return [
        f"-    {_SIZES[size]}     -          - {text}"
        for size, text in zip(rows["size"].tolist(), _results(rows, "buf"), strict=True)
    ]


def _dev(rows: Events) -> list[str]:
    cells = []
    for row in rows:
        flags = int(row["flags"])
        if row["kind"] == Kind.DEVICE_GONE:
            cells.append(f"{_NONE} ok")
            continue
        mask, limit, boundary = (
            int(row[name]) for name in ("dma_mask", "bus_dma_limit", "segment_boundary_mask")
        )
        group = int(row["attachment"])
        facts = [
            f"mask {mask:#x}" if flags & Flag.HAS_MASK else "no mask",
            f"bus-limit {limit:#x}" if limit else "",
            f"max-segment {human_size(int(row['max_segment_size']))}"
            if row["max_segment_size"]
            else "",
            f"boundary {boundary:#x}" if boundary else "",
            f"align {int(row['min_align_mask']):#x}" if row["min_align_mask"] else "",
            f"group {group}" if group != 0xFFFF_FFFF else "",
            f"domain {row['domain']}" if row["domain"] else "",
            "coherent" if flags & Flag.COHERENT else "non-coherent",
            "translated" if flags & Flag.TRANSLATED else "",
        ]
        cells.append(f"{_NONE} {' '.join(filter(None, facts))}")
    return cells


def _dom(rows: Events) -> list[str]:
    cells = []
    for row, text in zip(rows, _results(rows, "dom"), strict=True):
        number = int(row["type"])
        facts = f"{_NONE} {text} domain {row['domain']}"
        if row["kind"] != Kind.DOMAIN_FREE:
            facts += f" {DOMAIN_TYPE_NAMES.get(number, f'type {number:#x}')}"
        if row["old_domain"] and row["old_domain"] != row["domain"]:
            facts += f" (was {row['old_domain']})"
        cells.append(facts)
    return cells


_IOMMU: Final = ("size", "iova", "done", "kind", "calls", "domain", "result", "flags")


def _iommu(rows: Events) -> list[str]:
    cells = []
    for size, iova, done, kind, calls, domain, result, flags, text in zip(
        *(rows[name].tolist() for name in _IOMMU),
        _results(rows, "iommu"),
        strict=True,
    ):
        cell = f"-    {_SIZES[size]}     - {iova:#10x} {text}"
        if calls > 1:
            cell += f" {calls} calls"
        if domain:
            inside = flags & Flag.INSIDE or kind == Kind.BOUNCE
            cell += f" {'domain' if inside else 'context'} {domain}"
        if kind == Kind.IOMMU_UNMAP and result >= 0 and done != size:
            cell += f" partial: {human_size(done)} unmapped"
        cells.append(cell)
    return cells


def _l2(rows: Events) -> list[str]:
    return [
        f"-    {_SIZES[size]}     - {address:#10x} {text} context {context}"
        for size, address, context, text in zip(
            rows["size"].tolist(),
            rows["address"].tolist(),
            rows["context"].tolist(),
            _results(rows, "l2"),
            strict=True,
        )
    ]


_FORMS: Final[Mapping[str, Callable[[Any], list[str]]]] = {
    "buf": _buf,
    "map": _map,
    "dev": _dev,
    "dom": _dom,
    "iommu": _iommu,
    "l2": _l2,
}

# Kind -> index of its payload in _FORMS; names and unknown kinds: none of them.
_PAYLOAD_NUMBER: Final = np.full(max(Kind) + 2, len(_FORMS))
for _kind in EVENT_NAMES:
    _PAYLOAD_NUMBER[_kind] = list(_FORMS).index(PAYLOAD_OF[_kind])
