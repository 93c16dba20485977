# SPDX-License-Identifier: GPL-2.0-or-later
"""The same small workload seen through each way to hook a function that is not the first choice.

`methods.py METHOD ARGUMENTS...` is dmabuf-tool on a kernel that can do nothing but METHOD (and raw
tracepoints).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from harness import SHARE, Result, run, workload

OPERATIONS = "400"
ALL = ("fentry", "kprobe_multi", "kprobe")


def fprobes() -> Result:
    """A capture and a log by kprobe_multi; of kprobes: reloaded() (providers.py)."""
    log = str(SHARE / "fprobes.log")
    return run(
        [
            *(sys.executable, __file__, "kprobe_multi"),
            *("trace", "-f", "-o", str(SHARE / "fprobes.dmabuf"), "--"),
            *workload("random_ops.py", "--operations", OPERATIONS, "--log", log),
        ]
    )


def main(method: str, *arguments: str) -> None:
    """The tool, restricted."""
    from dmabuf_tool.cli.main import main as tool_main
    from dmabuf_tool.probes import abilities, layout

    probe, values = abilities.probe, layout.kernel_values

    def only(*given: Any, **options: Any) -> Any:
        left = (method, "kprobe")  # for what no_fentry names (providers.py), as on any kernel
        return replace(probe(*given, **options), **{other: other in left for other in ALL})

    abilities.probe = only
    if method == "kprobe":  # as kernels that have nothing else: no bpf_loop() either
        layout.kernel_values = lambda btf: values(btf) | {layout.LOOP: 0}
    sys.argv = ["dmabuf-tool", *arguments]
    tool_main()


if __name__ == "__main__":
    main(*sys.argv[1:])
