# SPDX-License-Identifier: GPL-2.0-or-later
"""Root file systems from Debian packages, unpacked and not configured.

mmdebstrap's `extract` variant takes 15 s, runs nothing of the guest's, and so treats all
architectures alike. What maintainer scripts would have done and the lab needs, `settle` does.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from . import cache
from .host import need, run

# Bind-mounting the archives keeps the .deb files for the next image; the private mount namespace
# takes the mount away however mmdebstrap ends. Suites before trixie do not merge /usr themselves.
UNPACK = """
set -e
mount --make-rprivate /
exec mmdebstrap --mode=root --variant=extract --format=directory --skip=cleanup/apt/cache \
  --setup-hook='mkdir -p "$1/var/cache/apt/archives" "$1/usr"' \
  --setup-hook='cd "$1"; for d in bin sbin lib lib64; do mkdir usr/$d; ln -s usr/$d $d; done' \
  --setup-hook='mount --bind "$LAB_DEBS" "$1/var/cache/apt/archives"' \
  --aptopt='Apt::Install-Recommends "false"' \
  --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  "$@"
"""

# update-alternatives would have made these; the first that exists wins.
ALTERNATIVES = {
    "usr/bin/sh": ("dash", "bash"),
    "usr/bin/awk": ("gawk", "mawk"),
    "usr/bin/cc": ("gcc",),
    "usr/lib/{triplet}/libblas.so.3": ("blas/libblas.so.3",),
    "usr/lib/{triplet}/liblapack.so.3": ("lapack/liblapack.so.3",),
}

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


# Packages taken without what they depend on; LAB_ALONE names them.
ALONE = """
set -e
cd "$1/tmp"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get -q -o APT::Sandbox::User=root download $LAB_ALONE
for deb in *.deb; do dpkg-deb -x "$deb" "$1"; rm "$deb"; done
"""


def unpack(
    suite: str,
    archs: Sequence[str],
    packages: Sequence[str],
    place: Path,
    alone: Sequence[str] = (),
) -> None:
    """Unpack `packages` and what they depend on into the new directory `place`; settle it.

    Packages in `alone` are unpacked without their dependencies. The first of `archs` is the tree's.
    """
    need("mmdebstrap", "mmdebstrap")
    debs = cache.root() / "debs"
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    command = ["env", f"LAB_DEBS={debs}", f"LAB_ALONE={' '.join(alone)}"]
    command += ["unshare", "--mount", "--", "sh", "-c", UNPACK, "sh"]
    command += [f"--extract-hook={ALONE}"] if alone else []
    command += [f"--architectures={','.join(archs)}", f"--include={','.join(packages)}"]
    with cache.lock("debs"):  # apt wants the directory of archives for itself
        run([*command, suite, str(place)], log=place.with_name(place.name + ".log"))
    settle(place, TRIPLETS[archs[0]])


def settle(top: Path, triplet: str) -> None:
    """Make an unconfigured tree usable: mount points, shell, accounts, alternatives."""
    for point in ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp"):
        (top / point).mkdir(exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copy(top / f"usr/share/base-passwd/{name}.master", top / "etc" / name)
    for link, targets in ALTERNATIVES.items():
        path = top / link.format(triplet=triplet)
        for target in targets:
            if not path.is_symlink() and not path.exists() and (path.parent / target).exists():
                path.symlink_to(target)
    (top / "etc/hostname").write_text("lab\n")
    (top / "etc/hosts").write_text("127.0.0.1 localhost lab\n")


def kernel_release(top: Path) -> str:
    """The release (uname -r) of the one kernel in a tree."""
    (found,) = (path.name for path in (top / "usr/lib/modules").iterdir())
    return found
