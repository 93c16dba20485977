# SPDX-License-Identifier: GPL-2.0-or-later
"""One line an event: content, options, hostile names, any cutting."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_samples import START, any_batch, batch, cut, event, story

from dmabuf_tool.kernel.errnos import errno_name
from dmabuf_tool.kernel.text import safe
from dmabuf_tool.render.details import human_size, human_time
from dmabuf_tool.render.faults import Attribution
from dmabuf_tool.render.lines import COLUMNS, LineRenderer, header_line
from dmabuf_tool.render.names import EVENT_NAMES
from dmabuf_tool.schema import NAME_KINDS, RING_KINDS, Batch, Flag, Kind, Losses, of_kind

EXPECTED = """\
  0.000010 weston/312   export  #3 (ino 41) system   -            -      4M     -          - 12us
  0.000012 weston/312   domain  -           -        -            -       -     -          - ok domain 7 DMA-FQ
  0.000012 weston/312   device  -           -        0000:00:05.0 -       -     -          - mask 0xffffffff max-segment 64K group 4 domain 7 coherent translated
  0.000014 weston/312   attach  #3 (ino 41) system   0000:00:05.0 -      4M     -          - dynamic 850ns
  0.000016 weston/312   map     #3 (ino 41) system   0000:00:05.0 to     4M   2/3 0xfff00000 3.4ms
  0.000017 weston/312   map     #3 (ino 41) system   0000:00:05.0 from   4M     -          - -ENOMEM 1.2s (DMA API: -EIO)
  0.000018 weston/312   cpu-access #3 (ino 41) system   -            bidi   4M     -          - ok begin
  0.000020 weston/312   unmap   #3 (ino 41) system   0000:00:05.0 to     4M   2/3 0xfff00000 ok
  0.000021 weston/312   domain-attach -           -        0000:00:05.0 -       -     -          - ok domain 8 unmanaged (was 7)
  0.000022 weston/312   level2-unmap -           -        -            -      8K     -     0x1000 ok 2 calls context 8 partial: 4K unmapped
  0.000023 weston/312   detach  #3 (ino 41) system   0000:00:05.0 -      4M     -          - ok
  0.000024 weston/312   release #3 (ino 41) system   -            -      4M     -          - ok
  0.000024 weston/312   released #3 (ino 41) system   -            -      4M     -          - 132.0ms
  0.000025 weston/312   export  -           udmabuf  -            -      1T     -          - -EINVAL
"""  # noqa: E501


def test_a_story() -> None:
    assert LineRenderer(START).render(story()) == EXPECTED


def test_header_stands_over_the_columns() -> None:
    head = header_line()
    first = EXPECTED.splitlines()[4]
    assert len(head) < 100
    assert len(first) < 100
    for name, cell in (("PROCESS", "weston"), ("EVENT", "map"), ("BUFFER", "#3"), ("DIR", "to ")):
        assert head.index(name) == first.index(cell)
    assert head.index("ADDRESS") + len("ADDRESS") == first.index("0xfff00000") + 10
    assert all(column.description for column in COLUMNS)


def test_failed_shows_only_what_failed() -> None:
    lines = LineRenderer(START, failed=True).render(story()).splitlines()
    assert lines == [EXPECTED.splitlines()[5], EXPECTED.splitlines()[-1]]


def test_verbose_shows_what_repeats() -> None:
    quiet = set(EXPECTED.splitlines())
    more = [
        line
        for line in LineRenderer(START, verbose=True).render(story()).splitlines()
        if line not in quiet
    ]
    assert [line.split()[2] for line in more] == ["iommu-map", "device"]


def test_a_fault_says_whose_address_it_was() -> None:
    told = [
        event(Kind.FAULT, 30, address=0xFFF00000, owner=0x19, client=1),
        event(Kind.FAULT, 31, address=0xFFF01000, owner=0x19, client=1),
    ]
    renderer = LineRenderer(START)
    renderer.render(story())
    faults = {
        0: Attribution("belonged to \x1b, unmapped 3.1 ms before", 2, 3, True, {}),
        1: Attribution("not looked up", 2, 0, False, {}),
    }
    (line,) = renderer.render(batch(*told), faults=faults).splitlines()
    assert " fault   #3          -        0000:00:05.0 " in line
    assert line.endswith("0xfff00000 ok context 0: belonged to \\x1b, unmapped 3.1 ms before")


def test_stacks_stand_below_their_line_and_are_safe() -> None:
    lines = LineRenderer(START, stacks=True).render(story()).splitlines()
    place = lines.index(EXPECTED.splitlines()[3])
    assert lines[place + 1 : place + 3] == [
        "           dma_buf_dynamic_attach+0x1f",
        "           evil\\x1b[2J+0x2 [edu]",
    ]


def test_hidden_events_still_introduce_names() -> None:
    whole = story()
    shown = whole.events["kind"] == Kind.MAP
    assert LineRenderer(START).render(whole, shown) == "".join(
        line + "\n" for line in EXPECTED.splitlines() if " map " in line
    )


def test_changed_limits_are_shown_again() -> None:
    one = event(Kind.DEVICE, device=2, dma_mask=1, flags=Flag.HAS_MASK)
    two = event(Kind.DEVICE, device=2, dma_mask=3, flags=Flag.HAS_MASK)
    text = LineRenderer(START).render(batch(one, one, two, two, one))
    assert re.findall(r"mask (\S+)", text) == ["0x1", "0x3", "0x1"]


def test_losses_are_told_once() -> None:
    renderer = LineRenderer(START)
    lossy = Losses(events=7)
    text = renderer.render(batch(losses=lossy))
    assert text.startswith("lost so far: 7 events, ")
    assert renderer.render(batch(losses=lossy)) == ""
    assert renderer.render(batch(losses=Losses(events=8)))


def test_a_quick_release_has_one_line() -> None:
    for ns, lines in ((10_000_000, 1), (9_999_999, 0)):
        one = batch(event(Kind.RELEASED, 10, buffer=1, duration_ns=ns))
        assert len(LineRenderer(START).render(one).splitlines()) == lines
        assert len(LineRenderer(START, verbose=True).render(one).splitlines()) == 1


def test_a_released_buffer_is_forgotten() -> None:
    renderer = LineRenderer(START)
    renderer.render(story())
    late = renderer.render(batch(event(Kind.PIN, buffer=3)))
    assert " #3          -  " in late


@settings(deadline=None)
@given(any_batch(), st.lists(st.integers(0, 20), max_size=4), st.booleans(), st.booleans())
def test_any_cutting_gives_the_same_safe_lines(
    whole: Batch, at: list[int], stacks: bool, verbose: bool
) -> None:
    once = LineRenderer(START, stacks=stacks, verbose=verbose).render(whole)
    renderer = LineRenderer(START, stacks=stacks, verbose=verbose)
    assert "".join(renderer.render(piece) for piece in cut(whole, at)) == once
    assert all(safe(line) == line for line in once.split("\n"))
    if not stacks and verbose:
        repeated = np.isin(whole.events["kind"], list(EVENT_NAMES)).sum()
        assert once.count("\n") == repeated + bool(whole.losses)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (31, "31"), (4096, "4K"), (1536, "1.5K"), (8716288, "8.3M"), (10**6, "977K"),
     (4 << 30, "4G"), (2**64 - 1, "16384P")],
)  # fmt: skip
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


def test_human_time() -> None:
    times = [human_time(value) for value in (0, 999, 1000, 999_999, 10**6, 10**9, 90 * 10**9)]
    assert times == ["0ns", "999ns", "1us", "999us", "1.0ms", "1.0s", "90.0s"]


def test_errno_names() -> None:
    assert [errno_name(-n) for n in (12, 517, 524, 4000)] == [
        "ENOMEM",
        "EPROBE_DEFER",
        "ENOTSUPP",
        "E4000",
    ]


def test_every_kind_has_a_name_or_is_one() -> None:
    assert set(EVENT_NAMES) | set(NAME_KINDS) | set(RING_KINDS) == set(Kind)
    assert len(of_kind(story().events, Kind.MAP)) == 2
