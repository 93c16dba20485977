# SPDX-License-Identifier: GPL-2.0-or-later
"""From a running kernel to batches: the probe plan, its loader and the ring buffers."""
