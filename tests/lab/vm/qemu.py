# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: QEMU's command line, as a function of what a run asks for."""

from dataclasses import dataclass, field
from pathlib import Path

# Fixed PCI addresses, so that tests can name devices. All are behind the IOMMU: edu is a device
# that reads and writes memory by DMA on request; the display devices are stock importers.
DEVICES = (
    "edu,dma_mask=0xffffffff,addr=0x03",
    "edu,dma_mask=0xffffffff,addr=0x04",
    "edu,dma_mask=0xffffffff,addr=0x05",
    "virtio-gpu-pci,iommu_platform=on,addr=0x06",
    "bochs-display,addr=0x07",
)

# Host ends of these are sockets, in the order of the ports' numbers (1, 2, 3).
PORTS = ("stdout", "stderr", "status")

# An oops ends the run, as a panic does: QEMU has -no-reboot. So do two minutes in which a processor
# did nothing but spin in the kernel: seen once, on 6.1, as probes were taken off under load.
PANIC = "oops=panic panic=-1 softlockup_panic=1 watchdog_thresh=60"

# What costs an emulated processor much and is not what is tested: to clear two megabytes for each
# Python that starts, for example.
SPEED = "mitigations=off transparent_hugepage=never"

MACHINES = {
    "amd64": [
        *("qemu-system-x86_64", "-M", "q35,kernel-irqchip=split"),
        *("-device", "intel-iommu,intremap=on"),
    ],
    "arm64": ["qemu-system-aarch64", "-M", "virt,iommu=smmuv3,gic-version=3"],
}

ARGUMENTS = {
    # The kernel's checks of timer and TSC fail when the host of an emulated machine is busy, and
    # 6.1 believes no two such processors to have one TSC. It then patches sched_clock() and
    # ktime_get(), and emulation with two processors now and then runs a patched place half old,
    # half new: a panic. The HPET, which is used instead, is a device that must be emulated.
    "amd64": "console=ttyS0 intel_iommu=on no_timer_check tsc=reliable",
    # arm64 separates page tables for KASLR's sake whatever SPEED says, and an emulated processor
    # forgets all translations at each system call then: a fifth of a trace's processor time.
    "arm64": "console=ttyAMA0 kpti=off",
}

# An old processor is emulated fastest. QEMU 7.2 emulates AVX2 wrongly: numpy 2.2.4 gave wrong sums
# with it, or crashed. With ERMS and FSRM kernel and libc copy and clear by "rep movsb": emulated, a
# byte at a time. XSAVE makes a switch of tasks dear, AVX makes what it saves large; SMAP, SMEP,
# UMIP and protection keys guard what is thrown away after the run.
_LEFT_OUT = ("la57", "avx", "avx2", "xsave", "erms", "fsrm", "smap", "smep", "umip", "pku")

PROCESSORS = {
    "amd64": ",".join(["max", *(f"{feature}=off" for feature in _LEFT_OUT)]),
    "arm64": "cortex-a72",
}

# Where instructions are counted, a processor has what today's have: a copy by "rep movsb" is few.
COUNTED = PROCESSORS | {"amd64": "max,avx2=off"}

PACKAGES = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}


@dataclass(frozen=True)
class Machine:
    """What one run asks for."""

    arch: str
    kernel: Path
    initrd: Path
    disk: Path
    project: Path
    share: Path | None = None
    memory: int = 4096  # MiB
    cpus: int = 2
    icount: bool = False
    kvm: bool = False
    verbose: bool = False  # the kernel says everything on its console
    append: str = ""
    more: tuple[str, ...] = field(default=())


def accelerator(machine: Machine) -> list[str]:
    """The options that say how instructions are run."""
    if machine.icount:
        # One nanosecond of guest time an instruction: reproducible figures, not wall time.
        tcg = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"]
        return [*tcg, "-cpu", COUNTED[machine.arch]]
    smp = ["-smp", str(machine.cpus)]
    if machine.kvm:
        return ["-accel", "kvm", "-cpu", "host", *smp]
    return ["-accel", "tcg,thread=multi", "-cpu", PROCESSORS[machine.arch], *smp]


def share(tag: str, path: Path, readonly: bool) -> list[str]:
    """A 9p share; commas in a path are doubled, as QEMU wants."""
    options = f"local,path={str(path).replace(',', ',,')},mount_tag={tag}"
    options += ",security_model=none,multidevs=remap"
    return ["-virtfs", options + (",readonly=on" if readonly else "")]


def command(machine: Machine, console: int, ports: tuple[int, int, int]) -> list[str]:
    """QEMU's argv; `console` and `ports` are file descriptors of sockets it inherits."""
    argv = [*MACHINES[machine.arch], *accelerator(machine), "-m", f"{machine.memory}M"]
    argv += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    for device in DEVICES:  # first: what has no address takes the first free one
        argv += ["-device", device]
    argv += ["-kernel", str(machine.kernel), "-initrd", str(machine.initrd)]
    log = "ignore_loglevel" if machine.verbose else "quiet loglevel=3"
    argv += ["-append", f"{ARGUMENTS[machine.arch]} {PANIC} {SPEED} {log} {machine.append}".strip()]
    disk = str(machine.disk).replace(",", ",,")
    argv += ["-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on,cache=unsafe"]
    argv += ["-device", "virtio-blk-pci,drive=disk"]
    argv += ["-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-pci"]
    for number, (name, descriptor) in enumerate(zip(PORTS, ports, strict=True), 1):
        argv += ["-chardev", f"socket,id={name},fd={descriptor}"]
        argv += ["-device", f"virtserialport,chardev={name},nr={number}"]
    argv += share("project", machine.project, readonly=True)
    if machine.share:
        argv += share("share", machine.share, readonly=False)
    return [*argv, *machine.more]
