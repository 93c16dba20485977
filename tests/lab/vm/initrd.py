# SPDX-License-Identifier: GPL-2.0-or-later
"""The initial RAM disk: a shell, a dozen modules, and per run the files of the job.

The kernel takes archives one after the other, so a run appends its own small archive to the one
that was built with the image: scripts, command, test module and tool reach the guest without a
new image and without a slow network file system.
"""

import lzma
import stat
from collections.abc import Iterable
from pathlib import Path

from .host import LabError, need, run

# In the order of their need; a name that the kernel has built in is simply not there.
# ext4 asks for crc32c by its crypto name, which no dependency shows.
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "ext4",
    "9p",
    "9pnet_virtio",
)


class Archive:
    """A cpio archive in the kernel's "newc" format, in memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def add(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file, and the directories above it."""
        for above in reversed(Path(name).parents[:-1]):
            self.directory(str(above))
        self._entry(name, stat.S_IFREG | mode, data)

    def directory(self, name: str) -> None:
        """Add a directory, once."""
        if name not in self._names:
            self._entry(name, stat.S_IFDIR | 0o755, b"")

    def finish(self) -> bytes:
        """The archive, ending on a boundary where another may follow."""
        self._entry("TRAILER!!!", 0, b"")
        data = b"".join(self._parts)
        return data + b"\0" * (-len(data) % 512)

    def _entry(self, name: str, mode: int, data: bytes) -> None:
        self._names.add(name)
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, nlink, mtime, size, dev x2, rdev x2, name length, checksum
        fields = (len(self._names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]


def base(top: Path, release: str) -> bytes:
    """The archive that belongs to an image: busybox, modules and their order of loading."""
    archive = Archive()
    for name in ("dev", "proc", "sys", "root", "lab"):
        archive.directory(name)
    archive.add("bin/busybox", (top / "usr/bin/busybox").read_bytes(), 0o755)
    modules = top / "usr/lib/modules" / release
    order = []
    for path in closure((modules / "modules.dep").read_text().splitlines(), MODULES):
        name = Path(path).name.split(".ko")[0] + ".ko"
        archive.add(f"modules/{name}", expand(modules / path))
        order.append(name)
    archive.add("modules/order", "".join(f"{name}\n" for name in order).encode())
    return archive.finish()


def closure(dep_lines: Iterable[str], names: Iterable[str]) -> list[str]:
    """Paths of the named modules after what they depend on, from the lines of modules.dep."""
    needs = {}
    for line in dep_lines:
        path, _, rest = line.partition(":")
        needs[Path(path).name.split(".ko")[0].replace("-", "_")] = [*reversed(rest.split()), path]
    return list(dict.fromkeys(path for name in names for path in needs.get(name, ())))


def expand(path: Path) -> bytes:
    """The contents of a module file, uncompressed."""
    data = path.read_bytes()
    match path.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return run([need("zstd", "zstd"), "-dc"], stdin=data)
    raise LabError(f"{path.name}: a compression this lab does not know")
