# SPDX-License-Identifier: GPL-2.0-or-later
"""dmabuf-tool: inspect and trace how Linux devices share dma-bufs."""

__version__ = "0.1.0"
