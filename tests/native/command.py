# SPDX-License-Identifier: GPL-2.0-or-later
"""dmabuf-tool itself, all but its probes: the tests' own (native.py) stand in, on any kernel.

With NEVER_COMPILES in the environment its compiler does not come back.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dmabuf_tool.kernel import children

children.hold_stops()  # the command's first lines

import native  # noqa: E402

from dmabuf_tool.probes import compiler, loader  # noqa: E402

if "NEVER_COMPILES" in os.environ:
    compiler.compile_one = lambda *_: time.sleep(3600)
loader.start = functools.partial(loader.start, hooks=(native.HOOK,))

from dmabuf_tool.__main__ import main  # noqa: E402

main()
