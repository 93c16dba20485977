# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a program inside an unpacked tree, with one directory of the host's at /mnt."""

from collections.abc import Sequence
from pathlib import Path

from .host import run

# A mount namespace of its own: the mounts vanish with the program, however it ends.
INSIDE = """
set -e
mount --make-rprivate /
mount --bind "$2" "$1/mnt"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
top=$1
shift 2
exec chroot "$top" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
"""


def inside(top: Path, at_mnt: Path, command: Sequence[str], log: Path | None = None) -> bytes:
    """Run `command` in the tree `top` with `at_mnt` bound to /mnt; needs root."""
    wrapped = ["unshare", "--mount", "--", "sh", "-c", INSIDE, "sh", str(top), str(at_mnt)]
    return run([*wrapped, *command], log=log)


def compile_probes(top: Path, at_mnt: Path, machine: str) -> None:
    """Compile the probes of the tool in `at_mnt` with the bcc of the tree `top`, as installing it
    does."""
    command = ["PYTHONPATH=/mnt", "PYTHONDONTWRITEBYTECODE=1", "python3"]
    command += ["-m", "dmabuf_tool.probes.prepare", "--machine", machine, "--page-size", "4096"]
    inside(top, at_mnt, [*command, "/mnt/dmabuf_tool/bpf/objects"])


def compile_python(top: Path, at_mnt: Path, *below: str, mode: str = "timestamp") -> None:
    """Byte-compile directories of `at_mnt` with the Python of the tree `top`."""
    # -s: tracebacks show paths as the guest sees them. Tests of libraries are never imported.
    command = ["python3", "-m", "compileall", "-q", "-j0", "-s", "/mnt"]
    command += ["--invalidation-mode", mode, "-x", "/(test|tests|idlelib|lib2to3)/"]
    inside(top, at_mnt, command + [f"/mnt/{path}" for path in below])
