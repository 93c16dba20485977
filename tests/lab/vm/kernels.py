# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of the lab: one distribution kernel each, as data."""

from dataclasses import dataclass

# What every guest holds beside its kernel. Nothing is configured after unpacking, so what the
# essential set would have brought is named here too.
_GUEST = """
    base-files base-passwd bash bpftool bpftrace busybox-static coreutils dash diffutils
    findutils gawk gcc grep gzip hostname iproute2 kmod libc6-dev make mount procps python3
    python3-bpfcc python3-click python3-numpy python3-pyroute2 python3-rich python3-zstandard
    sed tar trace-cmd udev util-linux v4l-utils xz-utils
"""
GUEST_PACKAGES = tuple(_GUEST.split())

# Where test modules and the tool's probes are compiled: kernel headers stay out of the guest, the
# tool must do without. The bcc is the guest's own distribution's.
_BUILD = """
    base-files base-passwd bash coreutils dash findutils gawk grep kmod make python3
    python3-bpfcc sed
"""
BUILD_PACKAGES = tuple(_BUILD.split())


@dataclass(frozen=True)
class Kernel:
    """One guest: a Debian suite with its default kernel on one architecture."""

    name: str
    suite: str
    arch: str = "amd64"

    @property
    def image_package(self) -> str:
        """The package that brings the kernel and its modules."""
        return f"linux-image-{self.arch}"

    def build_packages(self, release: str) -> tuple[list[str], list[str]]:
        """What compiles a module for `release`: packages, and packages without what they need.

        Headers of another architecture depend on that architecture's own compiler; they are
        taken alone, with the host's kbuild and a cross compiler beside them.
        """
        if self.arch == "amd64":
            return [f"linux-headers-{release}", *BUILD_PACKAGES], []
        version = release.removesuffix(f"-{self.arch}")
        native = [f"linux-kbuild-{version}", f"linux-headers-{version}-common"]
        native += [f"gcc-{self.cross_compile}".removesuffix("-"), *BUILD_PACKAGES]
        return native, [f"linux-headers-{release}:{self.arch}"]

    @property
    def cross_compile(self) -> str:
        """kbuild's CROSS_COMPILE; empty where the compiler is native."""
        return "" if self.arch == "amd64" else "aarch64-linux-gnu-"

    @property
    def machine(self) -> str:
        """What uname -m says."""
        return {"amd64": "x86_64", "arm64": "aarch64"}[self.arch]

    @property
    def karch(self) -> str:
        """kbuild's ARCH."""
        return {"amd64": "x86", "arm64": "arm64"}[self.arch]


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("6.1", "bookworm"),
        Kernel("6.12", "trixie"),
        Kernel("7.2", "sid"),
        Kernel("arm64", "trixie", "arm64"),
    )
}

DEFAULT = "6.12"
