# SPDX-License-Identifier: GPL-2.0-or-later
"""The providers as data hold together; what cannot be attached is said, not silently left out."""

from __future__ import annotations

import os
import re
import socket

import pytest

from dmabuf_tool.errors import ToolError
from dmabuf_tool.model.contexts import PROVIDERS as NAMES
from dmabuf_tool.probes import handover, late, modules, plan, texts
from dmabuf_tool.probes.late import Late
from dmabuf_tool.probes.loader import Loaded
from dmabuf_tool.probes.providers import PROVIDERS
from dmabuf_tool.probes.source import Options

CAN = plan.Abilities(fentry=True, kprobe_multi=False, kprobe=True, raw_tracepoint=True)


class Types:
    """A module's BTF, made up: these functions with so many arguments, and all tracepoints."""

    def __init__(self, functions: dict[str, int]) -> None:
        self.functions = functions

    def arity(self, name):
        return self.functions.get(name)

    def has_tracepoint(self, name):
        return True


def provider(module):
    return next(one for one in PROVIDERS if one.module == module)


def test_each_hook_has_its_handlers():
    for one in PROVIDERS:
        for hook in one.hooks:
            text = texts.bpf_file(f"{hook.subject}.bpf.c")
            assert (f"on_{hook.name}_entry(" in text) == hook.entry, hook
            assert (f"on_{hook.name}_exit(" in text) == hook.exit, hook
            assert hook.functions or hook.raw_tracepoint


def test_hook_names_are_unique_and_fit():
    names = [hook.name for one in PROVIDERS for hook in one.hooks]
    names += [hook.name for hook in plan.HOOKS]
    assert len(set(names)) == len(names)
    assert all(len(one.hooks) <= modules.NUMBERS for one in PROVIDERS)
    assert len(plan.HOOKS) <= modules.FIRST_NUMBER
    # save_call() keys by eight bits.
    assert modules.first_number(PROVIDERS[-1]) + modules.NUMBERS <= 256


def test_numbers_of_providers_are_the_models():
    """enum provider in bpf/level2.bpf.h and PROVIDERS in model/contexts.py."""
    found = re.findall(r"PROVIDER_(\w+) = (\d+)", texts.bpf_file("level2.bpf.h"))
    assert len(found) == len(NAMES) - 2
    for name, number in found:
        assert NAMES[int(number)].removeprefix("drm_") == name.lower()


def test_msm_is_known_by_its_letters():
    (found,) = re.findall(r"#define NAME_MSM (0x[0-9a-f]+)", texts.bpf_file("gpuvm.bpf.c"))
    assert int(found, 16).to_bytes(4, "little") == b"msm\0"


def test_no_constants_to_copy_from():
    """bcc does not relocate data: a struct with initialisers other than zero is read from 0."""
    for one in PROVIDERS:
        text = texts.bpf_file(f"{one.hooks[0].subject}.bpf.c")
        assert not re.search(r"struct \w+ \w+ = \{ *\.", text), one.module


def test_a_function_with_other_arguments_leaves_the_provider_out():
    msm = provider("msm")
    known = {
        "msm_iommu_pagetable_map": 5,
        "msm_iommu_pagetable_unmap": 3,
        "msm_iommu_pagetable_create": 1,
        "msm_iommu_pagetable_destroy": 1,
    }
    good = modules.Module(msm, Types(known), "")
    assert [way.method for way in good.resolve(CAN)] == ["fentry"] * 4
    other = modules.Module(msm, Types({**known, "msm_iommu_pagetable_map": 6}), "")
    with pytest.raises(ToolError, match="msm_iommu_pagetable_map"):
        other.resolve(CAN)


def test_a_birth_that_cannot_be_hooked_is_missing_and_no_more():
    lima = provider("lima")
    known = {"lima_vm_bo_add": 3, "lima_vm_bo_del": 2, "lima_vm_release": 1}
    ways = modules.Module(lima, Types(known), "").resolve(CAN)
    assert [way.hook.name for way in plan.missing(ways)] == ["lima_create"]


def test_more_descriptors_than_one_message_takes():
    here, there = socket.socketpair()
    with here, there:
        numbers = [here.fileno()] * 450
        handover.send(here, {"a": 1}, numbers)
        message, fds = handover.receive(there)
        assert message == {"a": 1} and len(set(fds)) == 450
        for fd in fds:
            socket.close(fd)


def test_a_loader_that_dies_says_nothing():
    here, there = socket.socketpair()
    here.close()
    with there, pytest.raises(ToolError, match="died"):
        handover.receive(there)


def test_modules_the_kernel_came_with(tmp_path):
    assert modules.installed(tmp_path) is None
    place = tmp_path / "lib/modules" / os.uname().release
    place.mkdir(parents=True)
    (place / "modules.dep").write_text(
        "kernel/drivers/gpu/drm/lima/lima.ko.xz: kernel/drivers/gpu/drm/drm.ko.xz\n"
        "kernel/drivers/gpu/drm/vc-4.ko:\n"
    )
    assert modules.installed(tmp_path) == {"lima", "vc_4"}


def test_what_a_trace_says_of_providers():
    loaded = Loaded()
    loaded.take(
        {
            "maps": [], "programs": [], "twins": {}, "ways": [],
            "providers": [
                {"module": "i915", "state": "attached", "why": ""},
                {"module": "xe", "state": "waiting", "why": ""},
                {"module": "lima", "state": "absent", "why": ""},
                {"module": "msm", "state": "left out", "why": "no struct msm_mmu"},
            ],
        },
        [],
    )  # fmt: skip
    assert Late(loaded, Options()).describe() == [
        "level 2 of i915; waits for modules xe",
        "level 2 of msm is not seen: no struct msm_mmu",
    ]


def test_a_module_that_was_loaded_again_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(late, "_SYS_MODULE", tmp_path / "module")
    monkeypatch.setattr(late, "_TYPES", tmp_path / "btf")
    (tmp_path / "btf").mkdir()
    (tmp_path / "btf/xe").touch()
    place = tmp_path / "module/xe"
    place.mkdir(parents=True)
    loaded = Loaded(providers={"xe": {"module": "xe", "state": "attached", "why": ""}})
    one = Late(loaded, Options())
    assert one._came() == []
    # Gone and back between two looks: sysfs has another directory.
    (tmp_path / "module/new").mkdir()
    place.rmdir()
    (tmp_path / "module/new").rename(place)
    assert one._came() == ["xe"]
    loaded.providers["xe"]["state"] = "attached"
    assert one._came() == []
    place.rmdir()
    assert one._came() == [] and loaded.providers["xe"]["state"] == "waiting"
    place.mkdir()
    assert one._came() == ["xe"]


def test_what_comes_again_takes_the_place_of_what_was_there():
    loaded = Loaded()
    message = {"maps": [], "programs": ["a", "b"], "twins": {}, "ways": [], "providers": []}
    first, second = ([os.dup(0) for _ in range(4)] for _ in range(2))
    loaded.take(message, first)
    loaded.take(message, second)
    assert (loaded.programs, loaded.links) == (
        dict(zip("ab", second[:2], strict=True)), dict(zip("ab", second[2:], strict=True)),
    )  # fmt: skip
    loaded.close()
    for fd in first + second:
        with pytest.raises(OSError):
            os.fstat(fd)
