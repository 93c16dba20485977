# SPDX-License-Identifier: GPL-2.0-or-later
"""vivid, the virtual video driver, as importer and exporter of dma-bufs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import uapi
from report import Account, modprobe


def load(contiguous: bool, devices: int = 2) -> list[Path]:
    """(Re)loads vivid: dma-contig allocator or vmalloc; its capture nodes."""
    modprobe("videodev")
    subprocess.run(["modprobe", "-r", "vivid"], capture_output=True, check=False)
    allocators = ",".join(["1" if contiguous else "0"] * devices)
    # node_types 0x1: a video capture node and nothing else.
    node_types = ",".join(["0x1"] * devices)
    if not modprobe(
        "vivid", f"n_devs={devices}", f"allocators={allocators}", f"node_types={node_types}"
    ):
        return []
    deadline = time.monotonic() + 10
    while len(nodes := uapi.v4l2_devices("vivid")) < devices and time.monotonic() < deadline:
        time.sleep(0.1)
    return nodes


def image_size(fd: int) -> int:
    """Bytes of a frame in the current format."""
    arg = uapi.V4l2Format(type=uapi.V4L2_CAPTURE)
    uapi.ioctl(fd, uapi.VIDIOC_G_FMT, arg)
    return int(arg.fmt.pix.sizeimage)


def request(fd: int, count: int, memory: int) -> None:
    """VIDIOC_REQBUFS; count 0 frees."""
    arg = uapi.V4l2RequestBuffers(count=count, type=uapi.V4L2_CAPTURE, memory=memory)
    uapi.ioctl(fd, uapi.VIDIOC_REQBUFS, arg)


def queue(fd: int, index: int, dmabuf: int, length: int) -> None:
    """VIDIOC_QBUF of a dma-buf. Raises OSError as the driver refuses."""
    arg = uapi.V4l2Buffer(
        index=index, type=uapi.V4L2_CAPTURE, memory=uapi.V4L2_DMABUF, length=length
    )
    arg.m.fd = dmabuf
    uapi.ioctl(fd, uapi.VIDIOC_QBUF, arg)


def export(fd: int, index: int) -> int:
    """VIDIOC_EXPBUF; the dma-buf's fd."""
    arg = uapi.V4l2ExportBuffer(type=uapi.V4L2_CAPTURE, index=index, flags=os.O_RDWR | os.O_CLOEXEC)
    uapi.ioctl(fd, uapi.VIDIOC_EXPBUF, arg)
    return int(arg.fd)


def page_up(size: int) -> int:
    return (size + uapi.PAGE - 1) // uapi.PAGE * uapi.PAGE


def offer(account: Account, node: Path, source: str, dmabuf: int) -> bool:
    """Queues a dma-buf on a capture node and takes it back; True if it was taken."""
    what = f"queue {source} on vivid"
    with uapi.open_fd(node) as fd:
        request(fd, 1, uapi.V4L2_DMABUF)
        try:
            queue(fd, 0, dmabuf, os.lseek(dmabuf, 0, os.SEEK_END))
        except OSError as e:
            account.refusal(what, e)
            return False
        finally:
            request(fd, 0, uapi.V4L2_DMABUF)
        account.did(what)
        return True
