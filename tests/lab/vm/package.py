# SPDX-License-Identifier: GPL-2.0-or-later
"""The tool itself, laid out as installed: byte-compiled for one guest's Python, with its probes.

The checkout is at /project too, but importing from a network file system costs an emulated
guest seconds; this copy travels in the initrd.
"""

import os
import shutil
from pathlib import Path

from . import cache
from .chroot import compile_probes, compile_python
from .host import step
from .image import Image

# As in pyproject.toml's package-dir: the BPF sources are installed inside the package.
LAYOUT = {"dmabuf_tool": "dmabuf_tool", "bpf": "dmabuf_tool/bpf"}


def ensure(image: Image) -> Path:
    """A directory to put on PYTHONPATH."""
    name = image.kernel.name
    sources = [cache.PROJECT / top for top in LAYOUT]
    key = cache.digest(image.place.name, str(os.geteuid() == 0), *sources)
    place = cache.root() / "packages" / f"{name}-{key}"
    if not place.exists():
        with cache.lock(f"package-{name}"):
            if not place.exists():
                _build(image, place)
            cache.prune(place.parent, f"{name}-", place.name, cache.DAY)
    return place


def _build(image: Image, place: Path) -> None:
    with cache.building(place) as work, step(f"{image.kernel.name}: compiling the tool's probes"):
        for top, target in LAYOUT.items():
            source = cache.PROJECT / top
            for path in cache.files(source):
                copy = work / target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        if os.geteuid() == 0:  # else it works as well, and compiles when it starts
            # Unchecked: the initrd keeps no modification times, and the copy never changes.
            compile_python(image.build_root, work, "dmabuf_tool", mode="unchecked-hash")
            compile_probes(image.build_root, work, image.kernel.machine)
