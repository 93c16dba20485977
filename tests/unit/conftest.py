# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts this directory on the path: tests in its subdirectories import `batches`."""
