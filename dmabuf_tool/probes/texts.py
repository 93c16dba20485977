# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of bpf/, as they travel with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BPF_DIRECTORY: Final = Path(__file__).parents[1] / "bpf"
"""A real directory, which bcc needs for the stub headers."""


def bpf_file(name: str) -> str:
    """The text of a file of bpf/."""
    return (BPF_DIRECTORY / name).read_text()
