# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images: disk, kernel, base initrd and the build root for modules, in one cache entry."""

import ast
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import cache, initrd, rootfs
from .chroot import compile_python, inside
from .host import LabError, need, run, step
from .kernels import BUILD_PACKAGES, GUEST_PACKAGES, Kernel

MOUNT_POINTS = ("lab", "project", "share")

SPARE = 1 << 30  # bytes free in the guest's root; the image file is sparse


@dataclass(frozen=True)
class Image:
    """A built image in the cache."""

    kernel: Kernel
    place: Path

    @property
    def disk(self) -> Path:
        """The root file system, ext4 without partitions."""
        return self.place / "disk.img"

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return self.place / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The base archive; a run appends its own."""
        return self.place / "initrd.cpio"

    @property
    def build_root(self) -> Path:
        """A host-architecture tree with compiler, kernel headers and the guest's Python."""
        return self.place / "build"

    @property
    def release(self) -> str:
        """What uname -r says in the guest."""
        release: str = json.loads((self.place / "meta.json").read_text())["release"]
        return release

    def exists(self) -> bool:
        """Whether it has been built."""
        return (self.place / "meta.json").exists()


def image_of(kernel: Kernel) -> Image:
    """The image of a kernel, built or not: its key covers the packages and the recipe."""
    here = Path(__file__).parent
    recipe = [
        ast.dump(ast.parse((here / name).read_text()))  # without comments and layout
        for name in ("chroot.py", "image.py", "initrd.py", "rootfs.py")
    ]
    key = cache.digest(repr(kernel), repr((GUEST_PACKAGES, BUILD_PACKAGES)), *recipe)
    return Image(kernel, cache.root() / "images" / f"{kernel.name}-{key}")


def ensure(kernel: Kernel) -> Image:
    """The image of a kernel, built now if it is not in the cache."""
    image = image_of(kernel)
    if not image.exists():
        with cache.lock(f"image-{kernel.name}"):
            if not image.exists():
                _build(image)
            cache.prune(image.place.parent, f"{kernel.name}-", image.place.name)
    return image


def _build(image: Image) -> None:
    if os.geteuid():
        raise LabError(f"the image for {image.kernel.name} is not built; building needs root")
    kernel, name = image.kernel, image.kernel.name
    with cache.building(image.place) as work, step(f"building the image for {name}"):
        guest, build = work / "guest", work / "build"
        with step(f"{name}: unpacking the guest's packages"):
            packages = [kernel.image_package, *GUEST_PACKAGES]
            rootfs.unpack(kernel.suite, [kernel.arch], packages, guest)
        release = rootfs.kernel_release(guest)
        with step(f"{name}: unpacking kernel headers and compiler"):
            packages, alone = kernel.build_packages(release)
            archs = list(dict.fromkeys(["amd64", kernel.arch]))
            rootfs.unpack(kernel.suite, archs, packages, build, alone)
        with step(f"{name}: compiling Python modules, making the disk"):
            # Else importing numpy and rich costs an emulated guest a minute.
            python = [f"usr/lib/{path.name}" for path in (guest / "usr/lib").glob("python3*")]
            compile_python(build, guest, *python)
            inside(build, guest, ["depmod", "-b", "/mnt", release])
            image_files(work, guest, release)
        shutil.rmtree(guest)
        shutil.rmtree(build / "usr/share", ignore_errors=True)
        (work / "meta.json").write_text(json.dumps({"release": release}) + "\n")


def image_files(work: Path, guest: Path, release: str) -> None:
    """Turn the guest's tree into disk, kernel and base initrd."""
    for point in MOUNT_POINTS:
        (guest / point).mkdir()
    # Debian moved the kernel beside its modules in 7.x.
    places = [guest / f"usr/lib/modules/{release}/vmlinuz", guest / f"boot/vmlinuz-{release}"]
    shutil.move(next(path for path in places if path.exists()), work / "vmlinuz")
    (work / "initrd.cpio").write_bytes(initrd.base(guest, release))
    used = int(run(["du", "-s", "--block-size=1", guest]).split()[0])
    command = [need("mke2fs", "e2fsprogs"), "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
    command += ["-d", str(guest), str(work / "disk.img")]
    run([*command, f"{(used + used // 8 + SPARE) >> 10}k"])
