#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the runs that are named, or all that left no result; one guest is booted for all."""

from __future__ import annotations

import argparse

from ends import full_disk, interrupted, killed, refused
from faults_late import faults_late
from filters import filters
from findings import contiguous, healthy
from harness import SHARE, lab, save
from inspection import compiled, inspection, surroundings
from levels import levels
from methods import methods
from preempted import preempted
from providers import late, providers, reloaded
from truth import truth

SCENARIOS = {
    "surroundings": surroundings,
    "refused": refused,
    "truth": truth,
    "preempted": preempted,
    "late": late,
    "reloaded": reloaded,
    "levels": levels,
    "faults_late": faults_late,
    "inspection": inspection,
    "healthy": healthy,
    "contiguous": contiguous,
    "filters": filters,
    "interrupted": interrupted,
    "killed": killed,
    "full_disk": full_disk,
    "methods": methods,
    "providers": providers,
    "compiled": compiled,
}


def unplayed(first: str) -> list[str]:
    """All, one before the others; or those that are missing after a guest's kernel panicked."""
    missing = [name for name in SCENARIOS if not (SHARE / f"{name}.json").exists()]
    return sorted(missing, key=lambda name: name != first)


def main() -> None:
    """Load the test driver, then one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of: {', '.join(SCENARIOS)}")
    parser.add_argument("--first", metavar="RUN", default="", help="played before the others")
    asked = parser.parse_args()
    lab.load()
    for name in asked.runs or unplayed(asked.first):
        save(name, SCENARIOS[name])


if __name__ == "__main__":
    main()
