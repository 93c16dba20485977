# SPDX-License-Identifier: GPL-2.0-or-later
"""What the distribution packaged: whether bcc is there, and how a missing package is called.

bcc comes from the distribution and not from PyPI, where another project has the name.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Package names by what is missing and the family of the distribution (os-release ID, ID_LIKE).
_PACKAGES: Final = {
    "bcc": {
        "debian": "python3-bpfcc",
        "ubuntu": "python3-bpfcc",
        "fedora": "python3-bcc",
        "rhel": "python3-bcc",
        "suse": "python3-bcc",
        "arch": "python-bcc",
        "alpine": "py3-bcc",
    },
    "libbpf": {
        "debian": "libbpf1",
        "ubuntu": "libbpf1",
        "suse": "libbpf1",
    },
    "pyroute2": {"arch": "python-pyroute2", "alpine": "py3-pyroute2"},
}
_ELSEWHERE: Final = {
    "bcc": "python3-bpfcc (Debian, Ubuntu), python3-bcc (Fedora, openSUSE) or python-bcc (Arch)",
    "libbpf": "libbpf",
    "pyroute2": "python3-pyroute2",
}
_INSTALL: Final = {
    "debian": "apt install",
    "ubuntu": "apt install",
    "fedora": "dnf install",
    "rhel": "dnf install",
    "suse": "zypper install",
    "arch": "pacman -S",
    "alpine": "apk add",
}

# Prints the version, or fails in the way that tells what is wrong.
_IMPORT: Final = "import bcc; bcc.BPF; print(bcc.__version__)"


@dataclass(frozen=True)
class Found:
    """The version, or what is wrong and, where it is not a missing package, what to do."""

    version: str | None
    problem: str = ""
    fix: str = ""


def families(root: Path = Path("/")) -> list[str]:
    """Name the distribution and those it is like, the nearest first."""
    values: dict[str, str] = {}
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition("=")
            values.setdefault(key, value.strip("\"'"))
    return [values.get("ID", ""), *values.get("ID_LIKE", "").split()]


def package(what: str, root: Path = Path("/")) -> str:
    """Name the package; a sentence that names several where the distribution is not known."""
    names = _PACKAGES[what]
    return next((names[name] for name in families(root) if name in names), _ELSEWHERE[what])


def bcc_fix(root: Path = Path("/")) -> str:
    """Say how bcc is installed here."""
    command = next((_INSTALL[name] for name in families(root) if name in _INSTALL), "install")
    return f"{command} {package('bcc', root)}"


def version_of(name: str) -> str | None:
    """Ask for the version of a Python package without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def bcc_version(timeout: float = 60.0) -> Found:
    """Import bcc in a child; takes 0.2 s, and seconds in an emulated machine."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(None, f"cannot be tried: {error}")
    if done.returncode == 0:
        return Found(done.stdout.strip())
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if "has no attribute 'BPF'" in last:
        return Found(None, "the bcc of PyPI is another project", "pip uninstall bcc; then again")
    if last.startswith("ModuleNotFoundError: No module named 'bcc'"):
        if sys.prefix != sys.base_prefix and not _sees_system_packages():
            return Found(
                None,
                "not visible in this virtual environment",
                "make it with python3 -m venv --system-site-packages",
            )
        return Found(None, f"not installed for {sys.executable}")
    return Found(None, last)


def _sees_system_packages() -> bool:
    """Whether the virtual environment we run in includes the distribution's packages."""
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    return "include-system-site-packages = true" in text
