# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the probes into what is installed, where the distribution's bcc is there and allowed to.

Where it is not (no root, no bcc) the first trace compiles them, which takes a second. All else
about the package is in pyproject.toml.
"""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PYTHON = "/usr/bin/python3"
"""The distribution's, which sees its bcc; a build's own environment does not."""
PREPARE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from dmabuf_tool.probes import prepare
prepare.main()
"""


class BuildWithProbes(build_py):
    """Python and BPF sources, then the probes."""

    def run(self) -> None:
        """Build; probes that cannot be compiled here are no error."""
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "dmabuf_tool/bpf/objects")
            command = [PYTHON, "-I", "-B", "-c", PREPARE, str(Path(__file__).parent), str(place)]
            try:
                subprocess.run(command, check=False)
            except OSError as error:
                print(f"dmabuf-tool: the probes are not compiled: {error}")


setup(cmdclass={"build_py": BuildWithProbes})
