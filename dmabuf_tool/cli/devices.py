# SPDX-License-Identifier: GPL-2.0-or-later
"""`dmabuf-tool devices`: the devices that do DMA and their limits."""

from __future__ import annotations

import click

from dmabuf_tool.cli.output import format_options, write_json, write_page


@click.command("devices")
@click.option(
    "-D",
    "--device",
    "names",
    metavar="NAME",
    multiple=True,
    help="Only this device, by its name or a node of it (card0); may have *.",
)
@click.option("--all", "every", is_flag=True, help="Also bridges, and devices without a driver.")
@format_options
def command(names: tuple[str, ...], every: bool, output_format: str) -> None:
    """List devices with their DMA limits, IOMMU group and default domain.

    Shows what sysfs says; limits that are kernel memory are read by a trace. Needs no root.
    """
    from dmabuf_tool.kernel import bufinfo, devices, iommu
    from dmabuf_tool.render import devices as render

    # A device that is asked for by name is shown whatever it is.
    found = devices.select(devices.devices(every=every or bool(names)), names)
    now = bufinfo.read()
    attached = (
        render.attachments(buffer.devices for buffer in now.buffers) if now.status == "ok" else None
    )
    if output_format == "json":
        from dmabuf_tool.kernel.machine import machine

        write_json(render.document(found, iommu.groups(), iommu.units(), attached, machine()))
    else:
        write_page(render.page(found, attached, iommu.units(), now.detail))
