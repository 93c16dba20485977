# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules of a large package without the rest of it.

`import pyroute2` imports all of it, with its database, its HTTP server and its console: 0.2 s of
processor time, 2 s on an emulated machine, in each child that listens, and the sockets need a
tenth. `import bcc` brings multiprocessing along, and the library's functions need none of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def module(package: str, name: str) -> Any:
    """Import a module of a package with the package's `__init__` left out.

    For a child that needs no more of it: to it the package looks empty from then on. Raises
    ImportError.
    """
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {package!r}")
        sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")
