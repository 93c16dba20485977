# SPDX-License-Identifier: GPL-2.0-or-later
"""Level-2 providers: every module the kernel has, without its hardware, one of which is held, and
what is left of a trace of all that is killed; one that comes later; one that goes and comes again.

No GPU is here, so the drivers of GPUs do nothing: that their probes attach and every member they
read is found is what is seen. drm_gpuvm works for real, for the lab driver's VMs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ends import kill
from harness import SHARE, Result, Tracer, kernel, lab, programs, run, tool, uapi, workload
from lab import F, Kind, Lab, Source
from matrix import NOT_LOADED
from methods import OPERATIONS

MODULES = (
    *("drm_gpuvm", "xe", "i915", "amdgpu", "nouveau", "msm", "panfrost", "panthor", "etnaviv"),
    *("lima", "v3d"),
)
SIZE = 16 * uapi.PAGE
VA = 0x4000_0000


def there(name: str) -> bool:
    """Whether a module is loaded."""
    return Path("/sys/module", name).is_dir()


def load(name: str) -> bool:
    """Load a module; False where this kernel has none of that name."""
    return not subprocess.run(["modprobe", "-q", name], check=False).returncode and there(name)


def late() -> Result:
    """A provider's module comes while a trace with stacks runs, and works; IOMMU domains older and
    younger than the trace."""
    module = provider()
    result: Result = {"module": module, "early": there(module), "pid": os.getpid()}
    with Lab() as driver:
        driver.reset()
        driver.clear_log()
        device = driver.edu()[0]
        result["before"] = before = driver.context(Kind.DOMAIN, device)
        tracer = Tracer("late", "--stacks", "-f", "-o", str(SHARE / "late.dmabuf")).ready()
        if not load(module):
            raise RuntimeError(f"this kernel has no {module}")
        fd = driver.export(SIZE)
        m = driver.map(driver.attach(fd, device))
        fresh = driver.context(Kind.DOMAIN, device)
        for context in (before, fresh):
            driver.level2_map(context, m.nr, VA, Source.PAGES)
        driver.context_free(fresh)
        # By bus, an SMMU's domain takes no map before a device is in it.
        by_bus = driver.context(Kind.DOMAIN, device, F.BY_BUS)
        driver.context_free(by_bus)
        result["fresh"] = [fresh, by_bus]
        if module == "drm_gpuvm":
            lab.load_vm()
            old = driver.context(Kind.GPUVM, device)
            driver.level2_map(old, m.nr, VA)  # nobody listens yet
        attached(tracer, module)
        if module == "drm_gpuvm":
            driver.level2_map(old, m.nr, VA + 2 * SIZE)
            new = driver.context(Kind.GPUVM, device)
            gone = driver.context(Kind.GPUVM, device)
            driver.level2_map(new, m.nr, VA)
            driver.level2_map(new, m.nr, VA + SIZE, offset=uapi.PAGE, size=2 * uapi.PAGE)
            driver.level2_map(gone, m.nr, VA)
            driver.level2_unmap(new, VA + uapi.PAGE, 2 * uapi.PAGE)
            driver.context_free(gone)
            result |= {"old": old, "new": new, "gone": gone}
        round_trip(driver, device)
        result["tool"] = tracer.interrupt().end()
        lab.copy_log(str(SHARE / "late.log"))
        os.close(fd)
    return result


class KprobeTracer(Tracer):
    """On a kernel that has kprobes alone, whose modules can be unloaded while they are traced."""

    tool = (sys.executable, str(Path(__file__).with_name("methods.py")), "kprobe")


def reloaded() -> Result:
    """Operations seen by kprobes, which do not hold modules; then a provider's goes and comes again
    under the trace. What fprobes() is for its method."""
    module = provider()
    result: Result = {"module": module, "pid": os.getpid()}
    start(module)
    tracer = KprobeTracer("reloaded", "-f", "-o", str(SHARE / "reloaded.dmabuf")).ready()
    result["operations"] = run(workload("random_ops.py", "--operations", OPERATIONS))
    with Lab() as driver:
        use(driver, module)
        result["unload"] = unload(module)
        start(module)
        attached(tracer, module)
        use(driver, module)
    result["tool"] = tracer.interrupt().end()
    lab.copy_log(str(SHARE / "reloaded.log"))
    unload(module)
    return result


def provider() -> str:
    """The provider of this kernel that works here, or one that can be loaded at least."""
    return "drm_gpuvm" if (lab.MODULES / "dmabuf_lab_vm.ko").exists() else "nouveau"


def start(module: str) -> None:
    """Load a provider, with the driver's part on top of drm_gpuvm."""
    if not load(module):
        raise RuntimeError(f"this kernel has no {module}")
    if module == "drm_gpuvm":
        lab.load_vm()


def attached(tracer: Tracer, module: str) -> None:
    """Wait until a trace has attached to a module that came."""
    tracer.wait(lambda: f"module {module} came" in tracer.said(), f"probes of {module}")


def unload(module: str) -> Result:
    """Unload it, with the driver's part on top."""
    if module == "drm_gpuvm" and there("dmabuf_lab_vm"):
        run(["rmmod", "dmabuf_lab_vm"])
    return run(["rmmod", module])


def round_trip(driver: Lab, device: int) -> None:
    """One buffer, from beginning to end."""
    fd = driver.export(SIZE)
    attachment = driver.attach(fd, device)
    driver.unmap(driver.map(attachment).nr)
    driver.detach(attachment)
    os.close(fd)


def use(driver: Lab, module: str) -> None:
    """One range in one GPU VM, which is freed with it."""
    if module != "drm_gpuvm":
        return
    device = driver.edu()[0]
    fd = driver.export(SIZE)
    attachment = driver.attach(fd, device)
    m = driver.map(attachment)
    context = driver.context(Kind.GPUVM, device)
    driver.level2_map(context, m.nr, VA)
    driver.level2_unmap(context, VA, SIZE)
    driver.context_free(context)
    driver.unmap(m.nr)
    driver.detach(attachment)
    os.close(fd)


HELD = "nouveau"
"""Every kernel has it, and nobody uses it here."""


def providers() -> Result:
    """All modules are there when a trace begins; those it hooks by BPF trampolines cannot go until
    it ends, by kill -9, with events under way."""
    wanted = [name for name in MODULES if name not in NOT_LOADED.get(kernel(), ())]
    loaded = [name for name in wanted if load(name)]
    before, capture = programs(), Path("/tmp/providers.dmabuf")
    tracer = Tracer("providers", "-o", str(capture), "-d", "600").ready()
    held = unload(HELD)
    killed = kill(tracer, capture, before)
    shutil.copy(capture, SHARE)
    return {
        "loaded": loaded,
        "held": held,
        "killed": killed,
        "doctor": tool("doctor", "--json"),
        "after": unload(HELD),
    }
