# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts this directory on the path: tests in its subdirectories import `batches`.

Properties have no deadline: on a busy machine a case may take any time.
"""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
