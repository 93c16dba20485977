# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's virtual machine: builds guest images and runs one command in a guest.

Standard library only. The pieces, from the bottom:

- `kernels`: which guests there are, as data; `cache`: where built things live.
- `host`: run host programs with progress; `rootfs`, `initrd`, `image`: build a guest.
- `module`, `package`: the test driver and the tool itself, made ready for a guest.
- `qemu`, `accel`: the command line of the machine; `guest`: start it, relay it, end it.
- `cli`: the arguments of `tests/lab/run`.
"""
