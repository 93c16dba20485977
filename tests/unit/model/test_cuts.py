# SPDX-License-Identifier: GPL-2.0-or-later
"""However a stream is cut into batches, state and findings are the same."""

from __future__ import annotations

import random
from typing import Any

from batches import Trace, pages, runs
from hypothesis import given, settings
from hypothesis import strategies as st

from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import SG_DMA_SWIOTLB, Batch, DomainType, Flag

IMPORTERS = (
    "edu_attach [edu]",
    "vb2_dc_attach_dmabuf [videobuf2_dma_contig]",
    "drm_gem_prime_import_dev [drm]",
)


def random_trace(seed: int, steps: int = 60) -> Trace:
    """Legal calls, with mistakes of importers in them, of several processes."""
    rng = random.Random(seed)
    trace = Trace()
    domain = trace.domain(DomainType.PAGING | DomainType.DMA_API)
    devices = [
        trace.device("a", max_segment_size=8192, dma_mask=0x1FFF_FFFF),
        trace.device("b", domain=domain, flags=Flag.HAS_MASK | Flag.TRANSLATED),
        trace.device("c", bus="platform", max_segment_size=4096),
    ]
    buffers = [trace.old_buffer()]
    attachments: list[Any] = []
    mappings: list[Any] = []
    for _ in range(steps):
        trace.run_as(
            rng.choice((100, 200)), rng.choice(("app", "cam")), rng.choice((100, 101, 200))
        )
        trace.wait(rng.choice((0, 0, 1, 60, 1500)))
        what = rng.randrange(16)
        if what < 2:
            buffers.append(trace.export(rng.choice((4096, 65536)), rng.choice(("system", "vgem"))))
        elif what < 5:
            attachment = trace.attach(
                rng.choice(buffers),
                rng.choice(devices),
                importer=rng.choice(IMPORTERS),
                result=rng.choice((0, 0, 0, 0, -19)),
            )
            if trace._events[-1]["result"][0] == 0:
                attachments.append(attachment)
        elif what < 9 and attachments:
            attachment = rng.choice(attachments)
            for _ in range(rng.choice((0, 0, 2))):
                trace.bounce(attachment, 4096)
            if rng.random() < 0.2:
                trace.map_failed(attachment, rng.choice((-12, -16, -4)), dma_errno=-12)
                continue
            entries: Any = rng.choice(
                (
                    pages(rng.randrange(1, 5)),
                    runs(4096, 16384, start=0x1FFF_E000),
                    [(0x1200, 4000)],
                    [(0x2000, 4096, SG_DMA_SWIOTLB)],
                    runs(*[4096] * 130),
                )
            )
            if rng.random() < 0.5:
                trace.iommu_map(attachment, 0xFFE0_1000, 2 << 20, 0x8000_0000)
            flags = rng.choice((0, 0, 0, Flag.IN_ATTACH))
            mappings.append(
                trace.map(
                    attachment,
                    entries,
                    direction=rng.choice((0, 0, 1)),
                    flags=flags,
                    attrs=rng.choice((0, 0, 32)),
                    chunk=rng.choice((1, 127)),
                )
            )
        elif what == 9 and mappings:
            again = rng.choice(mappings)
            if again.attachment in attachments:
                trace.map_again(again)
                trace.unmap(again, flags=Flag.CACHED)
        elif what < 12 and mappings:
            trace.unmap(mappings.pop(rng.randrange(len(mappings))))
        elif what == 12:
            trace.cpu_begin(rng.choice(buffers))
            trace.cpu_end(rng.choice(buffers))
        elif what == 13 and attachments:
            attachment = attachments.pop(rng.randrange(len(attachments)))
            trace.detach(attachment, flags=rng.choice((0, Flag.IN_ATTACH)))
            if rng.random() < 0.7:
                mappings = [m for m in mappings if m.attachment is not attachment]
        elif what == 14 and attachments:
            trace.pin(rng.choice(attachments), rng.choice((0, -22)))
            trace.iommu_unmap(rng.choice(attachments), 0xFFE0_1000, 4096)
            trace.invalidate(rng.choice(buffers))
        elif what == 15 and buffers:
            buffer = rng.choice(buffers)
            if not any(a.buffer is buffer for a in attachments) and len(buffers) > 1:
                trace.release(buffer, rng.choice((0, 60_000_000)))
                buffers.remove(buffer)
                mappings = [m for m in mappings if m.attachment.buffer is not buffer]
    trace.wait(2000).cpu_begin(buffers[0])
    return trace


def state(batches: list[Batch]) -> dict[str, Any]:
    """All that can be asked of a trace after its end."""
    engine = Engine()
    for batch in batches:
        engine.feed(batch)
    engine.model.process_exits([(200, engine.model.last_ns - 1_000_000_000)])
    findings = engine.findings()
    model = engine.model
    registry = model.registry
    return {
        "findings": [
            (f.rule.id, f.rank, f.told, f.count, f.first_ns, f.last_ns, sorted(f.buffers),
             f.subject.tgid, f.subject.site.id)
            for f in findings
        ],
        "live": model.live_mappings().tolist(),
        "ended": model.mappings.ended.rows.tolist(),
        "buffers": {
            b.id: (b.size, b.name, b.attachments, sorted(b.attached), b.devices, b.processes)
            for b in [*registry.buffers.values(), *registry.ended_buffers.values()]
        },
        "buffer counts": [list(registry.counts_of(b) or ()) for b in range(1, 200)],
        "attachments": registry.attachment_counts.live().tolist(),
        "devices": registry.device_counts.live().tolist(),
        "domains": registry.domain_counts.live().tolist(),
        "processes": (model.processes.counts.live().tolist(),
                      sorted((p.tgid, p.comm) for p in model.processes.by_tgid.values())),
        "ended attachments": [(a.id, a.detached_ns) for a in registry.ended_attachments],
        "times": (model.first_ns, model.last_ns, model.events),
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 400), max_size=40),
    early=st.integers(0, 3),
)
def test_cuts_change_nothing(seed: int, cuts: list[int], early: int) -> None:
    trace = random_trace(seed)
    assert state(trace.batches(cuts, early)) == state([trace.batch()])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_event_alone(seed: int) -> None:
    trace = random_trace(seed, 120)
    assert state(trace.batches(range(len(trace)))) == state([trace.batch()])


def test_random_traces_raise_every_rule_of_the_first_path() -> None:
    """The property is worth something only where there is something to find."""
    seen = set()
    for seed in range(60):
        seen |= {finding[0] for finding in state([random_trace(seed).batch()])["findings"]}
    assert seen >= {
        "attach-refused", "map-refused", "pin-refused", "not-contiguous", "attachment-leak",
        "address-beyond-limit", "segment-too-long", "bounced", "misaligned", "size-mismatch",
        "coherency-mix", "late-tighter-attach", "direction-conflict", "detach-while-mapped",
        "mapping-leak", "pin-leak", "cpu-access-unbalanced", "small-iommu-pages",
        "undeclared-limits", "union-unsatisfiable", "fragmented",
    }  # fmt: skip
