# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration the running kernel was built with, where the distribution left it.

Only for explanations ("CONFIG_KPROBES is not set"): what a kernel can do is asked of the kernel,
never of this file, which may belong to another build of the same release.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)


def candidates(root: Path = Path("/"), release: str = "") -> list[Path]:
    """List where a kernel's configuration may be, the surest first."""
    release = release or os.uname().release
    return [
        root / "proc/config.gz",
        root / f"boot/config-{release}",
        root / f"lib/modules/{release}/config",
        root / f"usr/lib/modules/{release}/config",
        root / f"lib/modules/{release}/build/.config",
    ]


def parse(text: str) -> dict[str, str]:
    """Parse a .config; "n" for what is not set. An option this kernel does not know is missing."""
    return {
        match[1] or match[3]: match[2].strip('"') if match[1] else "n"
        for match in _LINE.finditer(text)
    }


def read(root: Path = Path("/"), release: str = "") -> dict[str, str] | None:
    """Read the configuration; None when it cannot be found."""
    for path in candidates(root, release):
        try:
            data = path.read_bytes()
            if path.suffix == ".gz":
                data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            continue
        return parse(data.decode("ascii", "replace"))
    return None
