# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls preempted in the middle by calls: what the kernel skipped, and what twins took over."""

from __future__ import annotations

import json

from harness import SHARE, Result, Tracer, listed_programs, run, workload

PAIRS = 1500


def preempted() -> Result:
    """A trace of it; the kernel's counts are read while the programs are there."""
    capture, log = SHARE / "preempted.dmabuf", SHARE / "preempted.log"
    # A ring that holds it all: tables that are lost would hide what is looked for.
    tracer = Tracer("preempted", "-f", "-m", "64", "-o", str(capture)).ready()
    did = run(workload("preempting.py", "--pairs", str(PAIRS), "--log", str(log)))
    skipped, taken = misses(), taken_over()
    ended = tracer.interrupt().end()
    return {**ended, "workload": did, "skipped": skipped, "taken": taken}


def misses() -> dict[str, list[int]]:
    """Runs that the kernel skipped, by program; of two the second's first, as it is attached."""
    links = json.loads(run(["bpftool", "-j", "link", "list"])["stdout"])
    attached = {link["prog_id"]: link["id"] for link in links if link["type"] == "tracing"}
    ours = [one for one in listed_programs() if one["id"] in attached]
    found: dict[str, list[int]] = {}
    for one in sorted(ours, key=lambda one: int(attached[one["id"]])):
        found.setdefault(one["name"], []).append(one.get("recursion_misses", 0))
    return {name: counts for name, counts in found.items() if any(counts)}


def taken_over() -> dict[str, int]:
    """What second programs told in place of first ones, by the number of both."""
    maps = json.loads(run(["bpftool", "-j", "map", "list"])["stdout"])
    ids = [str(one["id"]) for one in maps if one.get("name") == "taken"]
    found: dict[str, int] = {}
    for number in ids:
        for element in json.loads(run(["bpftool", "-j", "map", "dump", "id", number])["stdout"]):
            key, values = element["key"], element["values"]
            calls = sum(little_endian(one["value"]) for one in values)
            if calls:
                found[str(little_endian(key))] = calls
    return found


def little_endian(words: list[str]) -> int:
    """A number as bpftool writes bytes."""
    return int.from_bytes(bytes(int(word, 16) for word in words), "little")
