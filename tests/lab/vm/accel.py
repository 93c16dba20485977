# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether KVM can be trusted here: a /dev/kvm may exist, accept everything and hang the guest."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from . import cache
from .host import need
from .image import Image
from .qemu import MACHINES

PROBE_SECONDS = 20


def kvm_works(image: Image) -> bool:
    """Whether the CPU says it can, and a probe guest boots; the answer holds until a reboot."""
    native = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    flags = Path("/proc/cpuinfo").read_text()
    if image.kernel.arch != native or not re.search(r"^flags.*\b(vmx|svm)\b", flags, re.MULTILINE):
        return False
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = cache.root() / f"kvm-{boot}"
    if not answer.exists():
        with cache.lock("kvm"):
            answer.write_text("yes\n" if _probe(image) else "no\n")
    return answer.read_text() == "yes\n"


def _probe(image: Image) -> bool:
    """Boot the kernel without a root: with panic=-1 and -no-reboot QEMU ends by itself."""
    argv = [need(MACHINES["amd64"][0], "qemu-system-x86"), *MACHINES["amd64"][1:]]
    argv += ["-accel", "kvm", "-cpu", "host", "-m", "512M", "-nodefaults", "-no-reboot"]
    argv += ["-display", "none", "-kernel", str(image.vmlinuz), "-append", "panic=-1 quiet"]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(argv, timeout=PROBE_SECONDS, capture_output=True, check=False)
        return done.returncode == 0
    return False
