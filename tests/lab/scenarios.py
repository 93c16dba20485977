#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays what each finding is about, and its near miss, on a real kernel; judges one trace of it.

    tests/lab/run --kernel 6.12 -- python3 tests/lab/scenarios.py --group A

A line a scene: the finding, the scene's name, and whether it was raised with the numbers expected
and the near miss was silent. The scenes are tests/lab/raised/group_*.py. --save keeps the capture,
and what is expected of it, for tests/data. Exit status 1 if anything is off.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for path in (HERE / "runs", HERE / "raised"):
    sys.path.insert(0, str(path))

from harness import Tracer  # noqa: E402 (the path is set above)
from scene import PAGE, SCENES, Lab, Scene, Stage, lab, time  # noqa: E402

WARM_S = 120


def play(scene: Scene, bad: bool) -> dict[str, Any]:
    """One act, and all that is needed to judge it."""
    stage = Stage()
    problem, evidence = "", {}
    try:
        evidence = scene.act(stage, bad)
        end_ns = time.monotonic_ns()
    except Exception:
        end_ns = time.monotonic_ns()
        problem = traceback.format_exc()
    finally:
        stage.close()
    return {
        "id": scene.id,
        "scene": scene.act.__name__,
        "bad": bad,
        "severity": scene.severity,
        "start_ns": stage.start_ns,
        "end_ns": end_ns,
        "evidence": evidence if bad else {},
        "thresholds": stage.thresholds,
        "constraints": stage.constraints,
        "holders": stage.holders,
        "kernel": stage.kernel,
        **({"problem": problem} if problem else {}),
    }


def _attach(edu: int, driver: Lab) -> None:
    driver.attach(driver.export(PAGE), edu)


def warm_up(capture: Path) -> None:
    """As a trace begins its children read the kernel's symbols and import pyroute2: exits that come
    meanwhile are known later than the acts below can wait. So processes exit until the trace knows
    when one did."""
    from judge import exits_so_far

    end = time.monotonic() + WARM_S
    while time.monotonic() < end:
        stage = Stage()
        pid, gone_ns = stage.child(partial(_attach, stage.edu[0]))
        stage.close()
        # Who only looks for it in /proc finds it gone later.
        if any(tgid == pid and ts_ns <= gone_ns for tgid, ts_ns in exits_so_far(capture)):
            return
    print(f"the kernel told of no exit within {WARM_S} s")


def judged(capture: Path, acts: list[dict[str, Any]], verbose: bool) -> int:
    """Print a line a scene; returns how many are off."""
    from judge import Played, others, verdict

    played, off = Played(capture), 0
    if played.losses:
        print(f"losses: {played.losses}")
        off += 1
    for bad, near in zip(acts[::2], acts[1::2], strict=True):
        words, problems = [], []
        for act, good in ((bad, "raised"), (near, "near miss silent")):
            if "problem" in act:
                wrong, beside = act["problem"], []
            else:
                found = played.findings(act)
                wrong, beside = verdict(act, found), others(act, found)
                if verbose and beside:
                    problems.append(f"    beside {good}: {', '.join(beside)}")
            words.append(f"{good.split(' ')[0]}: {wrong}" if wrong else good)
            off += bool(wrong)
        print(f"{bad['id']:<28} {bad['scene']:<22} {', '.join(words)}")
        for line in (*bad["kernel"], *problems) if verbose else problems:
            print(f"    {line}" if line[0] != " " else line)
    return off


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--group", default="ABCD", help="letters of the groups to play")
    p.add_argument("--only", metavar="ID", action="append", help="only this finding's")
    p.add_argument("--save", type=Path, metavar="DIR", help="keep capture and expectations here")
    p.add_argument("-v", "--verbose", action="store_true", help="the kernel's words too")
    args = p.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    lab.load()
    off = 0
    for letter in args.group:
        if not (HERE / f"raised/group_{letter.lower()}.py").exists():
            print(f"there are no scenes of group {letter}")
            return 2
        importlib.import_module(f"group_{letter.lower()}")
        chosen = [
            one
            for one in SCENES
            if one.group == letter
            and one.where in ("any", platform.machine())
            and (not args.only or one.id in args.only)
        ]
        name = (
            f"{'.'.join(os.uname().release.split('.')[:2])}-{platform.machine()}-{letter.lower()}"
        )
        # Not in the share: it is read while it is written, and there a frame was lost so (7.2).
        capture = Path("/tmp") / f"{name}.dmabuf"
        tracer = Tracer(f"scenes-{letter}", "-m", "4", "-f", "-o", str(capture)).ready()
        warm_up(capture)
        acts = [play(one, bad) for one in chosen for bad in (True, False)]
        ended = tracer.interrupt().end()
        print(ended["stderr"].strip().splitlines()[-1])
        if args.save:
            shutil.copy(capture, args.save)
            # A line an act: small differences show in reviews.
            lines = ",\n".join(json.dumps(act) for act in acts)
            (args.save / f"{name}.json").write_text(f"[\n{lines}\n]\n")
        off += judged(capture, acts, args.verbose)
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
