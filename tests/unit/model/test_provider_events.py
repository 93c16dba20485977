# SPDX-License-Identifier: GPL-2.0-or-later
"""What each provider's probes would send, and what becomes of it. Constructed: no GPU is here."""

from __future__ import annotations

import pytest
from batches import Attachment, Mapping, Trace
from two_levels import IOVA, PAGE, VA, put, take, translated

from dmabuf_tool.model.contexts import PROVIDERS, Context
from dmabuf_tool.model.matching import DMA, PAGES, UNKNOWN
from dmabuf_tool.model.model import Model
from dmabuf_tool.rules.engine import Engine
from dmabuf_tool.schema import DomainType, Flag, Kind

USER, WORKER = (1000, "glxgears"), (77, "kworker/u8:1")
VM = 90
DRIVERS = ("i915", "amdgpu", "nouveau", "panfrost", "etnaviv", "lima")
"""Providers that name an object, fed from DMA addresses."""


def imported(trace: Trace, pages: int = 4) -> tuple[Attachment, Mapping]:
    """A buffer a process imported into a GPU, which mapped it."""
    trace.run_as(*USER)
    attachment = trace.attach(trace.export(pages * PAGE), translated(trace))
    return attachment, trace.map(attachment, [(IOVA, pages * PAGE)])


def born(trace: Trace, provider: str, *, opened: bool, client: int = 0, flags: int = 0) -> None:
    """vm_id() in bpf/level2.bpf.h; an opener's birth names nobody."""
    nobody = {"tgid": 0, "tid": 0} if opened else {}
    trace.event(
        Kind.CONTEXT, context=VM, provider=PROVIDERS.index(provider), device=1, client=client,
        flags=flags, **nobody,
    )  # fmt: skip


def mapped(trace: Trace, provider: str, attachment: Attachment, pages: int = 4) -> None:
    trace.event(
        Kind.LEVEL2_MAP, context=VM, provider=PROVIDERS.index(provider), address=VA,
        size=pages * PAGE, buffer=attachment.buffer.id, attachment=attachment.id, device=1,
    )  # fmt: skip


def unmapped(trace: Trace, provider: str, buffer: int, va: int = VA, pages: int = 4) -> None:
    trace.event(
        Kind.LEVEL2_UNMAP, context=VM, provider=PROVIDERS.index(provider), address=va,
        size=pages * PAGE, buffer=buffer,
    )  # fmt: skip


def context_of(trace: Trace, number: int = VM) -> Context:
    model = Model()
    model.apply(trace.batch())
    found = model.levels.contexts.find(number)
    assert found is not None
    return found


@pytest.mark.parametrize("provider", DRIVERS)
def test_a_vm_belongs_to_who_maps_in_it_not_to_who_opened_it(provider):
    trace = Trace()
    trace.run_as(300, "logind")
    born(trace, provider, opened=True, client=7)
    attachment, mapping = imported(trace)
    mapped(trace, provider, attachment)
    context = context_of(trace)
    assert (context.tgid, context.comm, context.client) == (*USER, 7)
    assert PROVIDERS[context.provider] == provider and context.kind == "gpu-vm"
    assert context.born_ns
    (one,) = context.ranges
    assert (one.buffer, one.mapping, one.source) == (attachment.buffer.id, mapping.id, DMA)


def test_who_makes_a_vm_by_ioctl_owns_it():
    trace = Trace()
    trace.run_as(*USER)
    born(trace, "i915", opened=False)
    assert context_of(trace).tgid == USER[0]


def test_a_worker_owns_nothing_and_its_work_is_the_owners():
    trace = Trace()
    attachment, _ = imported(trace)
    born(trace, "drm_gpuvm", opened=False)
    trace.run_as(*WORKER)
    mapped(trace, "drm_gpuvm", attachment)
    context = context_of(trace)
    assert context.tgid == USER[0]
    assert [one.tgid for one in context.ranges] == [USER[0]]


def test_what_a_worker_does_for_nobody_known_is_nobodys():
    trace = Trace()
    attachment, _ = imported(trace)
    trace.run_as(*WORKER)
    born(trace, "drm_gpuvm", opened=False, flags=Flag.PREEXISTING)
    mapped(trace, "drm_gpuvm", attachment)
    context = context_of(trace)
    assert context.tgid == 0 and [one.tgid for one in context.ranges] == [0]


def test_an_unmap_by_a_worker_is_the_owners():
    trace = Trace()
    attachment, _ = imported(trace)
    born(trace, "amdgpu", opened=False)
    mapped(trace, "amdgpu", attachment)
    trace.run_as(*WORKER)
    unmapped(trace, "amdgpu", attachment.buffer.id)
    model = Model()
    model.apply(trace.batch())
    assert [one.tgid for one in model.levels.removed.newest(9)] == [USER[0]]


def test_a_client_that_becomes_known_later_is_no_second_birth():
    """xe: the asid is told when the VM is first looked up, i915: the file at the first bind."""
    trace = Trace()
    trace.run_as(*USER)
    born(trace, "drm_gpuvm", opened=False)
    first = trace.now
    born(trace, "drm_gpuvm", opened=False, client=42, flags=Flag.PREEXISTING)
    context = context_of(trace)
    assert (context.client, context.born_ns) == (42, first)


def test_msm_names_the_mapping_it_was_given_and_reads_its_pages():
    trace = Trace()
    attachment, mapping = imported(trace)
    trace.event(
        Kind.LEVEL2_MAP, context=VM, provider=PROVIDERS.index("msm"), address=VA, size=4 * PAGE,
        mapping=mapping.id, attachment=attachment.id,
    )  # fmt: skip
    (one,) = context_of(trace).ranges
    assert (one.buffer, one.source) == (attachment.buffer.id, PAGES)


def test_v3d_has_one_address_space_that_is_nobodys():
    trace = Trace()
    attachment, _ = imported(trace)
    mapped(trace, "v3d", attachment)
    context = context_of(trace)
    assert context.tgid == 0 and [one.tgid for one in context.ranges] == [USER[0]]


def test_amdgpu_clears_whatever_is_in_a_range():
    trace = Trace()
    attachment, _ = imported(trace)
    mapped(trace, "amdgpu", attachment)
    unmapped(trace, "amdgpu", 0, VA + PAGE, 1)
    unmapped(trace, "amdgpu", 0, VA + 64 * PAGE, 8)  # nothing of ours is there
    context = context_of(trace)
    assert [(one.start, one.size) for one in context.ranges] == [
        (VA, PAGE), (VA + 2 * PAGE, 2 * PAGE),
    ]  # fmt: skip
    assert context.other_bytes == 0


def test_an_exported_object_has_no_level_1_of_its_own():
    trace = Trace()
    trace.run_as(*USER)
    buffer = trace.export(4 * PAGE, exporter="amdgpu")
    trace.event(
        Kind.LEVEL2_MAP, context=VM, provider=PROVIDERS.index("amdgpu"), address=VA,
        size=4 * PAGE, buffer=buffer.id,
    )  # fmt: skip
    (one,) = context_of(trace).ranges
    assert (one.mapping, one.source) == (0, UNKNOWN)


def domain(trace: Trace, flags: int = 0) -> int:
    """A driver's own IOMMU domain: made now, or seen in use for the first time."""
    number = 5
    trace.event(Kind.DOMAIN, domain=number, type=int(DomainType.PAGING), flags=flags)
    return number


def test_a_private_domain_is_born_when_it_is_made():
    trace = Trace()
    trace.run_as(*USER)
    number = domain(trace)
    first = trace.now
    trace.wait(50).run_as(4000, "other")
    put(trace, number, VA, IOVA)
    context = context_of(trace, number)
    assert (context.born_ns, context.tgid) == (first, USER[0])


def test_a_domain_seen_in_use_is_older_than_the_trace():
    trace = Trace()
    trace.run_as(*USER)
    number = domain(trace, Flag.PREEXISTING)
    put(trace, number, VA, IOVA)
    context = context_of(trace, number)
    assert (context.born_ns, context.tgid) == (0, USER[0])


@pytest.mark.parametrize("flags", [0, Flag.PREEXISTING])
def test_unmaps_are_judged_by_what_was_seen_only_in_a_domain_seen_from_its_birth(flags):
    """VT-d counts holes as unmapped: nothing was mapped there, if we saw all of it."""
    trace = Trace()
    trace.run_as(*USER)
    number = domain(trace, flags)
    take(trace, number, VA, 4 * PAGE)
    engine = Engine()
    engine.feed(trace.batch())
    raised = {one.rule.id for one in engine.findings()}
    assert ("unmap-elsewhere" in raised) == (not flags)
