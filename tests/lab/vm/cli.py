# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of tests/lab/run."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from . import accel, cache, guest, image, module, package
from .host import LabError
from .kernels import DEFAULT, KERNELS
from .qemu import Machine

# Statuses of our own, out of the way of the command's (as timeout(1) and env(1) have them).
STATUS_TIMEOUT, STATUS_LAB = 124, 125


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="tests/lab/run",
        usage="%(prog)s [OPTIONS] -- COMMAND...  |  --list  |  --build [KERNEL...]",
        description="Run a command as root in a virtual machine with an IOMMU and dma-bufs. The "
        "checkout is read-only at /project, the working directory; dmabuf-tool is on the PATH; "
        "compiled test drivers are in /lab/modules. Output comes as it is written; the "
        f"exit status is the command's, {STATUS_TIMEOUT} for a timeout, {STATUS_LAB} when "
        "the lab itself failed.",
    )
    add = top.add_argument
    add("--kernel", choices=KERNELS, default=DEFAULT, help="guest to boot (default: %(default)s)")
    add("--memory", type=int, default=4096, metavar="MB", help="default: %(default)s")
    add("--cpus", type=int, default=2, metavar="N", help="default: %(default)s")
    add("--share", type=Path, metavar="DIR", help="a directory, read-write at /share")
    add("--timeout", type=float, metavar="SECONDS", help="end the guest after that long")
    add("--icount", action="store_true", help="one CPU, guest time counts instructions")
    add("--append", default="", metavar="ARGS", help="more kernel arguments")
    add("--qemu", default="", metavar="ARGS", help="more QEMU arguments")
    add("--console", action="store_true", help="show the guest's console on stderr")
    add("--list", action="store_true", help="show the kernels and their images")
    add("--build", nargs="*", metavar="KERNEL", help="build images (default: all) and test drivers")
    add("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    top = parser()
    args = top.parse_args(given[:split])
    args.command += given[split + 1 :]
    signal.signal(signal.SIGTERM, _terminate)
    # A shell starts background jobs with SIGINT ignored; a guest must end all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if args.list:
            return show()
        if args.build is not None:
            return build(args.build or list(KERNELS))
        if not args.command:
            top.error("what should the guest run? (tests/lab/run -- uname -a)")
        return run(args)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return STATUS_TIMEOUT if isinstance(error, guest.Timeout) else STATUS_LAB
    except KeyboardInterrupt:
        print("lab: interrupted, the guest is gone", file=sys.stderr)
        return 128 + signal.SIGINT


def _terminate(number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds as any exception does, so that nothing is left behind."""
    raise SystemExit(128 + number)


def show() -> int:
    """One line a kernel."""
    for kernel in KERNELS.values():
        found = image.image_of(kernel)
        state = f"{found.release:28} {found.place}" if found.exists() else "not built"
        print(f"{kernel.name:6} {kernel.suite:9} {kernel.arch:6} {state}")
    return 0


def build(names: Sequence[str]) -> int:
    """Build what is missing, test drivers included."""
    for name in names:
        if name not in KERNELS:
            raise LabError(f"no kernel {name}; there are {', '.join(KERNELS)}")
        built = image.ensure(KERNELS[name])
        with cache.in_use(built.place):
            module.ensure(built)
            package.ensure(built)
    return 0


def run(args: argparse.Namespace) -> int:
    """Boot the guest and run the command."""
    if args.share and not args.share.is_dir():
        raise LabError(f"--share {args.share}: not a directory")
    built = image.ensure(KERNELS[args.kernel])
    with cache.in_use(built.place):
        try:
            modules = module.ensure(built)
        except LabError as error:
            modules = None
            print(f"lab: no test driver in this guest: {error}", file=sys.stderr)
        machine = Machine(
            arch=built.kernel.arch,
            kernel=built.vmlinuz,
            initrd=built.initrd,
            disk=built.disk,
            project=cache.PROJECT,
            share=args.share.absolute() if args.share else None,
            memory=args.memory,
            cpus=args.cpus,
            icount=args.icount,
            kvm=not args.icount and accel.kvm_works(built),
            verbose=args.console,
            append=args.append,
            more=tuple(shlex.split(args.qemu)),
        )
        job = guest.Job(
            argv=args.command,
            package=package.ensure(built),
            modules=modules,
            share=machine.share is not None,
            timeout=args.timeout,
            console=args.console,
        )
        return guest.run(machine, job, sys.stdout.buffer, sys.stderr.buffer)
