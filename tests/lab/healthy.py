#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces the stock drivers sharing as they should, for long: nothing may be called wrong.

    tests/lab/run --memory 2048 -- python3 tests/lab/healthy.py --minutes 10

Prints what was done, then each finding with its count: information is to be read, a warning or an
error ends with exit status 1, and so does a lost event. 2 GiB: more, and devices of 32 bits need
bounce buffers, which is not healthy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

WORKLOAD = Path(__file__).resolve().parent / "workloads/healthy.py"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--pause", type=float, default=0.05, help="seconds between rounds")
    p.add_argument("--save", type=Path, default=Path("/tmp"), metavar="DIR", help="of the capture")
    args = p.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    capture = args.save / f"healthy-{os.uname().release}.dmabuf"
    workload = [
        *(sys.executable, str(WORKLOAD)),
        *("--seconds", str(args.minutes * 60), "--pause", str(args.pause)),
    ]
    trace = ["dmabuf-tool", "trace", "-f", "-m", "4", "-o", str(capture), "--", *workload]
    status = subprocess.run(trace, check=False).returncode
    if status:
        print(f"the workload ended with {status}")
        return 1
    report = subprocess.run(
        ["dmabuf-tool", "report", "--format", "json", str(capture)],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(report.stdout)
    for one in told["findings"]:
        print(f"{one['severity']:<8} {one['id']:<24} {one['count']:>7} x  {one['title']}")
        print(f"         {json.dumps(one['evidence'])}")
    wrong = [one for one in told["findings"] if one["severity"] != "info"]
    lost = {what: number for what, number in told["losses"].items() if number}
    print(
        f"{os.uname().release}: {told['captures'][0]['events']} events, lost: {lost or 'nothing'},"
        f" {len(told['findings'])} findings, {len(wrong)} of them warnings or errors"
    )
    return 1 if wrong or lost else 0


if __name__ == "__main__":
    sys.exit(main())
