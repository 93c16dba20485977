# SPDX-License-Identifier: GPL-2.0-or-later
"""Words rules share: who imports and exports, sizes, and the number of a ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmabuf_tool.kernel.text import many, size

if TYPE_CHECKING:
    from dmabuf_tool.model.objects import Site

__all__ = ["exporter", "importer", "many", "size"]


def importer(site: Site) -> str:
    """The importer as a person looks for it: its framework, else its function and module."""
    if site.framework.name != "unknown":
        return site.framework.name
    return str(site.importer) if site.importer is not None else "unknown"


def exporter(site: Site) -> str:
    """The exporter's name."""
    return site.exporter or "unknown"
