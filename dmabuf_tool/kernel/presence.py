# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a process or a device is there now: a trace for one that is not would show nothing.

Any struct device can be attached to a dma-buf, so all of sysfs counts, not only the devices that
`dmabuf-tool devices` lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PATTERN: Final = frozenset("*?[")


def is_pattern(name: str) -> bool:
    """Whether a name stands for several."""
    return not _PATTERN.isdisjoint(name)


def process_of(pid: int, root: Path = Path("/")) -> int | None:
    """The id of the process that `pid`, maybe one of its threads, belongs to; None for no one."""
    try:
        status = (root / f"proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return None


def has_device(name: str, root: Path = Path("/")) -> bool:
    """Whether the kernel has a device of this name, as dev_name() gives it."""
    if "/" in name or name in ("", ".", ".."):
        return False
    sysfs = root / "sys"
    # Every device is on a bus, in a class, or at the top of the tree.
    places = (sysfs.glob("bus/*/devices"), sysfs.glob("class/*"), sysfs.glob("devices"))
    return any((directory / name).exists() for place in places for directory in place)
