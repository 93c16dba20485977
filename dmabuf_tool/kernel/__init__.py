# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine is: one kernel interface a file, read-only, without probes."""
