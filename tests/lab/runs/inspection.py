# SPDX-License-Identifier: GPL-2.0-or-later
"""devices and list, with buffers that are held and attached while list looks."""

from __future__ import annotations

import os
from pathlib import Path

from harness import Result, lab, tool, uapi

from dmabuf_tool.probes import cache

BUFINFO = Path("/sys/kernel/debug/dma_buf/bufinfo")


def inspection() -> Result:
    """Both verbs; doctor is asked when all modules are there (providers.py)."""
    result: Result = {"devices": tool("devices", "--json")}
    with lab.Lab() as driver:
        edu = driver.edu()
        buffers = [driver.export(pages * uapi.PAGE) for pages in (1, 4, 16)]
        for device in edu[:2]:
            driver.attach(buffers[1], device)
        driver.attach(buffers[2], edu[0])
        result["bufinfo"] = BUFINFO.read_text()
        result["list"] = tool("list", "--json")
        result["list_text"] = tool("list")
        result["holder"] = os.getpid()
        for fd in buffers:
            os.close(fd)
    return result


def compiled() -> Result:
    """At the end: the texts that did not come with the tool."""
    return {"texts": sorted(path.name for path in Path(cache.directory()).glob("*"))}


def surroundings() -> Result:
    """The kernel, and where its headers would be."""
    release = os.uname().release
    modules = Path("/lib/modules") / release
    return {
        "release": release,
        "headers": [
            str(path)
            for path in (modules / "build", modules / "source", Path("/sys/kernel/kheaders.tar.xz"))
            if path.exists()
        ],
    }
