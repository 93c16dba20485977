#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the runs that are named, one after the other; one guest is booted for all."""

from __future__ import annotations

import argparse

from filters import filters
from findings import findings
from harness import SHARE, lab, save
from inspection import compiled, inspection, surroundings
from methods import fprobes
from preempted import preempted
from providers import late, providers, reloaded
from truth import truth

PLAYED = (
    *(surroundings, late, truth, preempted, reloaded, findings, inspection, filters, fprobes),
    *(providers, compiled),
)


def main() -> None:
    """Load the test driver, then play."""
    runs = {run.__name__: run for run in PLAYED}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", choices=runs, metavar="RUN", help=f"of: {', '.join(runs)}"
    )
    parser.add_argument(
        "--rest",
        action="store_true",
        help="only those that left no result, after a guest's kernel panicked",
    )
    asked = parser.parse_args()
    lab.load()
    for name in asked.runs:
        if not (asked.rest and (SHARE / f"{name}.json").exists()):
            save(name, runs[name])


if __name__ == "__main__":
    main()
