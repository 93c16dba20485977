# SPDX-License-Identifier: GPL-2.0-or-later
"""Outputs: one a file. Pure functions from records to text; they know no flags and no files."""
