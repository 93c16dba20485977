# SPDX-License-Identifier: GPL-2.0-or-later
"""A process to be killed: loads, prints the program's id, and waits.

With `--compiling` its compiler never ends."""

from __future__ import annotations

import sys
import time

import native

from dmabuf_tool.probes import compiler, loader

if "--compiling" in sys.argv:

    def never(*_: object) -> None:
        """A compiler that does not come back."""
        print("compiling", flush=True)
        time.sleep(3600)

    compiler.compile_one = never
    loading = loader.start(native.options(1 << 16), (native.HOOK,))
    loading.finish()
loaded = native.load(1 << 16)
print(*(native.program_id(fd) for fd in loaded.programs.values()), flush=True)
sys.stdin.read()
