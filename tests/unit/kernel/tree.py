# SPDX-License-Identifier: GPL-2.0-or-later
"""Small fake /proc and /sys trees, in the formats real kernels write."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, path: str, text: str | bytes = "") -> Path:
    """Make a file and its directories."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text.encode() if isinstance(text, str) else text)
    return target


def link(root: Path, path: str, target: str) -> None:
    """Make a symbolic link; a target that starts with / is below root."""
    source = root / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.symlink_to(root / target[1:] if target.startswith("/") else target)


def process(root: Path, pid: int, comm: str, maps: str | bytes = "") -> None:
    """Make a process without descriptors."""
    write(root, f"proc/{pid}/comm", comm + "\n")
    write(root, f"proc/{pid}/maps", maps)
    write(root, f"proc/{pid}/stat", f"{pid} ({comm}) S 1 1 1 0 -1 4194304 0 0")
    for name in ("fd", "fdinfo"):
        (root / f"proc/{pid}/{name}").mkdir()


def descriptor(root: Path, pid: int, fd: int, target: bytes, fdinfo: bytes) -> None:
    """Give a process a descriptor."""
    import os

    os.symlink(target, os.fsencode(root / f"proc/{pid}/fd/{fd}"))
    write(root, f"proc/{pid}/fdinfo/{fd}", fdinfo)


# debugfs dma_buf/bufinfo as Linux 6.1 wrote it. The second buffer's name has an escape sequence
# and imitates a device list; a fence line stands before the devices.
BUFINFO_6_1 = b"""
Dma-buf Objects:
size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\x20\x20\x20\x20
02097152\t00000002\t00080007\t00000007\tvirtio_gpu\t00000002\t<none>
\twrite fence:virtio_gpu controlq seq 17 unsignalled
\tAttached Devices:
\tvgem
\tvgem
\t0000:00:06.0
Total 3 devices attached

01048576\t00000002\t00080007\t00000004\tdrm\t00000001\t\x1b[31mred
\tAttached Devices:
\tAttached Devices:
Total 0 devices attached


Total 2 objects, 3145728 bytes
"""

# Linux 7.2: mode has more bits, inode numbers may be wider.
BUFINFO_7_2 = b"""
Dma-buf Objects:
size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\x20\x20\x20\x20
00008192\t00000002\t02080007\t00000004\tsystem\t00000005\t<none>
\tAttached Devices:
Total 0 devices attached

17179869184\t00000002\t02080007\t00000006\tudmabuf\t123456789012\tcam\xc3\xa9ra
\tAttached Devices:
\tvgem
Total 1 devices attached


Total 2 objects, 17179877376 bytes
"""

# Linux 5.15 (drivers/dma-buf/dma-buf.c): an empty name, fences of the old kind.
BUFINFO_5_15 = b"""
Dma-buf Objects:
size    \tflags   \tmode    \tcount   \texp_name\tino\x20\x20\x20\x20\x20
00004096\t00000002\t00080007\t00000002\ti915\t00000012\t
\tExclusive fence: i915 0000:00:02.0:1 signalled
\tShared fence: i915 0000:00:02.0:2 unsignalled
\tAttached Devices:
\t0000:01:00.0
Total 1 devices attached


Total 1 objects, 4096 bytes
"""  # fmt: skip

FDINFO_6_1 = (
    b"pos:\t0\nflags:\t02000002\nmnt_id:\t11\nino:\t2\nsize:\t2097152\ncount:\t7\n"
    b"exp_name:\tvirtio_gpu\n"
)
FDINFO_NAMED = (
    b"pos:\t0\nflags:\t02000002\nmnt_id:\t11\nino:\t1\nsize:\t1048576\ncount:\t4\n"
    b"exp_name:\tdrm\nname:\t\x1b[31mred\n\tAttached Devices:\n"
)
