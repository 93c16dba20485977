# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers on real kernels: their probes attach, and drm_gpuvm's tell what was done.

The drivers of GPUs are loaded without hardware: none of their events is seen here.
"""

from __future__ import annotations

import json

import pytest
from compare import lines_of
from matrix import NOT_LOADED, RUNS

from dmabuf_tool.capture.reader import open_capture
from dmabuf_tool.model.model import Model
from dmabuf_tool.probes.providers import PROVIDERS
from dmabuf_tool.schema import Losses

X86 = {"i915", "amdgpu", "nouveau"}
HERE = {
    "6.1": X86,
    "6.12": X86 | {"drm_gpuvm", "xe"},
    "7.2": X86 | {"drm_gpuvm", "xe"},
    "arm64": {
        *("drm_gpuvm", "xe", "amdgpu", "nouveau", "msm", "panfrost", "panthor", "etnaviv", "lima"),
        "v3d",
    },
}
"""The modules Debian's kernels have. panthor has no provider of its own: it uses drm_gpuvm."""
LOADED = {kernel: modules - NOT_LOADED.get(kernel, set()) for kernel, modules in HERE.items()}


def plan_of(path):
    """The hooks of providers in a capture's plan: module -> hook -> method."""
    found = {}
    with open_capture(path) as reader:
        for way in reader.header.plan:
            if "module" in way:
                found.setdefault(way["module"], {})[way["hook"]] = way["method"]
    return found


def replay(path):
    """The model after a capture."""
    model = Model()
    with open_capture(path) as reader:
        for batch in reader.batches():
            model.apply(batch)
    return model


def pages_of(ranges):
    """Page -> page of the buffer."""
    return {
        va: offset + va - start for start, end, offset in ranges for va in range(start, end, 4096)
    }


def logged_pages(log, context):
    """What the driver's log says is mapped in a context at the end."""
    pages = {}
    for line in log:
        if line.get("context") != context or line["result"]:
            continue
        if line["op"] == "level2-map":
            start, size = line["va"], line["bytes"]
            pages |= pages_of([(start, start + size, line["offset"])])
        elif line["op"] == "level2-unmap":
            for va in range(line["va"], line["va"] + line["bytes"], 4096):
                del pages[va]
    return pages


def test_every_module_of_the_kernel_was_loaded(guest):
    assert set(guest["providers"]["loaded"]) == LOADED[guest.kernel]


def test_every_hook_of_every_loaded_provider_attaches(guest):
    result = guest["providers"]["killed"]
    assert "is not seen" not in result["stderr"], result["stderr"]
    planned = plan_of(guest.capture("providers"))
    known = {one.module: {hook.name for hook in one.hooks} for one in PROVIDERS}
    assert set(planned) == LOADED[guest.kernel] & known.keys()
    for module, ways in planned.items():
        assert set(ways) == known[module]
        assert "missing" not in ways.values(), (module, ways)


def test_doctor_says_how_providers_stand(guest):
    document = json.loads(guest["providers"]["doctor"]["stdout"])
    checks = {check["id"]: check for check in document["checks"]}
    for provider in PROVIDERS:
        check = checks[f"level2-{provider.module}"]
        assert check["status"] == "ok", check
        if provider.module in LOADED[guest.kernel]:
            assert f"{len(provider.hooks)} hooks by " in check["detail"]
        elif provider.module in HERE[guest.kernel]:
            assert check["detail"] == f"waits for module {provider.module}"
        else:
            assert check["detail"] == f"this kernel came without module {provider.module}"


def test_a_module_that_comes_later_is_attached(guest):
    late = guest["late"]
    assert not late["early"] and late["tool"]["status"] == 0
    said = late["tool"]["stderr"]
    (waits,) = [line for line in said.splitlines() if "waits for modules" in line]
    listed = waits.partition("waits for modules ")[2].split(", ")
    assert set(listed) == HERE[guest.kernel] & {one.module for one in PROVIDERS}
    assert f"module {late['module']} came: attached after" in said
    assert "nothing lost" in said
    with open_capture(guest.capture("late")) as reader:
        for _ in reader.batches():
            pass
        entries = [entry["providers"] for entry in reader.inventory if "providers" in entry]
    assert [one["standing"] for one in entries] == [
        [{"module": late["module"], "state": "attached", "why": ""}]
    ]


def test_a_private_domain_is_born_where_it_is_made(guest):
    late = guest["late"]
    model = replay(guest.capture("late"))
    made = {
        one["context"]: (one["start_ns"], one["ts_ns"])
        for one in lines_of(guest.share / "late.log")
        if one["op"] == "context-create"
    }
    contexts = [one for one in model.levels.contexts.all() if one.is_private and one.type]
    # By either of the two functions that 6.11 and 6.12 have for it.
    born = [one for one in contexts if one.born_ns]
    for fresh, number in zip(born, late["fresh"], strict=True):
        start, end = made[number]
        assert start <= fresh.born_ns <= end and fresh.freed_ns
        assert fresh.tgid == late["pid"]
    assert [one.mapped for one in born] == [1, 0]
    # Older than the trace: its birth is not known, its owner is who maps in it.
    (before,) = [one for one in contexts if not one.born_ns]
    assert (before.tgid, before.mapped, before.freed_ns) == (late["pid"], 1, 0)


@pytest.mark.parametrize(
    "guest", [kernel for kernel in HERE if "drm_gpuvm" in HERE[kernel]], indirect=True
)
def test_its_vms_and_ranges_are_what_the_driver_did(guest):
    late = guest["late"]
    assert late["module"] == "drm_gpuvm"
    model = replay(guest.capture("late"))
    log = lines_of(guest.share / "late.log")
    born = {one["context"]: one["ts_ns"] for one in log if one["op"] == "context-create"}
    contexts = [one for one in model.levels.contexts.all() if one.kind == "gpu-vm"]
    old, new, gone = contexts
    assert [one.tgid for one in contexts] == [late["pid"]] * 3
    assert not old.born_ns and new.name == gone.name == "dmabuf_lab"
    for context, number in ((new, late["new"]), (gone, late["gone"])):
        assert context.born_ns and abs(context.born_ns - born[number]) < 100_000_000
    assert gone.freed_ns and not gone.ranges
    assert not new.freed_ns
    seen = pages_of([(one.start, one.end, one.offset) for one in new.ranges])
    assert seen == logged_pages(log, late["new"])
    # Mapped before anybody listened: not seen, and not made up.
    assert pages_of([(one.start, one.end, one.offset) for one in old.ranges]) == {
        va: offset for va, offset in logged_pages(log, late["old"]).items() if va >= 0x4002_0000
    }
    assert {one.buffer for one in new.ranges} == {1} and all(one.mapping for one in new.ranges)


def test_a_trace_holds_the_modules_it_hooks_by_trampolines(guest):
    result = guest["providers"]
    assert result["held"]["status"] and "in use" in result["held"]["stderr"]
    with open_capture(guest.capture("providers")) as reader:
        assert sum(len(batch.events) for batch in reader.batches())
        assert reader.losses == Losses()
    assert result["after"]["status"] == 0, result["after"]


@pytest.mark.parametrize("guest", RUNS["reloaded"], indirect=True)
def test_a_module_that_was_loaded_again_is_attached_again(guest):
    result = guest["reloaded"]
    said = result["tool"]["stderr"]
    assert result["unload"]["status"] == 0, result["unload"]
    assert result["tool"]["status"] == 0 and "nothing lost" in said
    assert said.count(f"module {result['module']} came: attached after") == 1


@pytest.mark.parametrize(
    "guest", [one for one in RUNS["reloaded"] if "drm_gpuvm" in HERE[one]], indirect=True
)
def test_what_it_did_before_and_after_is_seen(guest):
    model = replay(guest.capture("reloaded"))
    vms = [one for one in model.levels.contexts.all() if one.kind == "gpu-vm"]
    assert len(vms) == 2
    for one in vms:
        assert one.tgid == guest["reloaded"]["pid"]
        assert one.born_ns and one.freed_ns and (one.mapped, len(one.ranges)) == (1, 0)
