# SPDX-License-Identifier: GPL-2.0-or-later
"""The test driver (tests/lab/module), compiled on the host for one guest kernel."""

import os
import shutil
from pathlib import Path

from . import cache
from .chroot import inside
from .host import LabError, step
from .image import Image

SOURCES = cache.PROJECT / "tests/lab/module"


def ensure(image: Image) -> Path | None:
    """The compiled modules of a kernel, a directory of .ko files; None while there are no sources.

    Raises LabError with the compiler's words when they do not compile.
    """
    if not any(SOURCES.glob("*.c")):
        return None
    name = image.kernel.name
    place = cache.root() / "modules" / f"{name}-{cache.digest(image.place.name, SOURCES)}"
    if place.exists():
        return place
    with cache.lock(f"module-{name}"):
        if not place.exists():
            _build(image, place)
        cache.prune(place.parent, f"{name}-", place.name, cache.DAY)
    return place


def _build(image: Image, place: Path) -> None:
    if os.geteuid():
        raise LabError("compiling tests/lab/module needs root")
    kernel = image.kernel
    with cache.building(place) as work, step(f"{kernel.name}: compiling the test driver"):
        for path in cache.files(SOURCES):
            copy = work / "src" / path.relative_to(SOURCES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        command = ["make", "-s", "-C", f"/lib/modules/{image.release}/build", "M=/mnt/src"]
        command += [f"ARCH={kernel.karch}", f"CROSS_COMPILE={kernel.cross_compile}", "modules"]
        inside(image.build_root, work, command, log=work / "src" / "log")
        for built in (work / "src").glob("*.ko"):
            shutil.copy(built, work)
        shutil.rmtree(work / "src")
