# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture files: batches written to disk and read back. The format is dmabuf-capture(5)."""
