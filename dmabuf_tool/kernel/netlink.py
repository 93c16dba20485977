# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules of pyroute2 without the rest of it.

`import pyroute2` imports all of it, with its database, its HTTP server and its console: 0.2 s of
processor time, 2 s on an emulated machine, in each child that listens. The sockets need a tenth.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def module(name: str) -> Any:
    """Import `pyroute2.<name>` with the package's `__init__` left out.

    For a child that needs no more of pyroute2: to it the package looks empty from then on. Raises
    ImportError.
    """
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None:
            raise ModuleNotFoundError("No module named 'pyroute2'")
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"pyroute2.{name}")
