# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's user interfaces the workloads need, as structs and ioctl numbers.

dma-buf (linux/dma-buf.h), dma-heap (linux/dma-heap.h), udmabuf (linux/udmabuf.h), DRM dumb
buffers and PRIME (drm/drm.h, drm/drm_mode.h), V4L2 buffers (linux/videodev2.h). Only what
is used here; 64-bit little-endian Linux on x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_U8, _U16 = ctypes.c_uint8, ctypes.c_uint16
_U32, _S32, _U64 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64

PAGE = mmap.PAGESIZE


def _ioc(direction: int, kind: str, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord(kind) << 8 | number


def io(kind: str, number: int) -> int:
    """_IO(kind, number)."""
    return _ioc(0, kind, number, 0)


def iow(kind: str, number: int, size: int) -> int:
    """_IOW(kind, number, a struct of size bytes)."""
    return _ioc(1, kind, number, size)


def iowr(kind: str, number: int, size: int) -> int:
    """_IOWR(kind, number, a struct of size bytes)."""
    return _ioc(3, kind, number, size)


def ioctl(fd: int, request: int, arg: ctypes.Structure | bytes) -> None:
    """ioctl(2), repeated on EINTR and EAGAIN as libdrm does. Raises OSError."""
    while True:
        try:
            fcntl.ioctl(fd, request, arg)
            return
        except InterruptedError:
            continue
        except OSError as e:
            if e.errno != errno.EAGAIN:
                raise
            time.sleep(0.001)


# ---- dma-buf ----


class DmaBufSync(ctypes.Structure):
    _fields_ = [("flags", _U64)]


SYNC_READ, SYNC_WRITE, SYNC_END = 1, 2, 4
DMA_BUF_IOCTL_SYNC = iow("b", 0, 8)
DMA_BUF_SET_NAME = iow("b", 1, 8)


def sync_begin(fd: int, flags: int = SYNC_READ | SYNC_WRITE) -> None:
    """DMA_BUF_IOCTL_SYNC before the CPU touches the buffer."""
    ioctl(fd, DMA_BUF_IOCTL_SYNC, DmaBufSync(flags))


def sync_end(fd: int, flags: int = SYNC_READ | SYNC_WRITE) -> None:
    """DMA_BUF_IOCTL_SYNC after the CPU touched the buffer."""
    ioctl(fd, DMA_BUF_IOCTL_SYNC, DmaBufSync(flags | SYNC_END))


def set_name(fd: int, name: str) -> None:
    """Names a dma-buf (at most 31 bytes)."""
    ioctl(fd, DMA_BUF_SET_NAME, name.encode() + b"\0")


def touch(fd: int, value: int) -> None:
    """Writes value to the first byte of each page through a synced CPU mapping."""
    size = os.lseek(fd, 0, os.SEEK_END)
    with mmap.mmap(fd, size) as view:
        sync_begin(fd)
        for at in range(0, size, PAGE):
            view[at] = value & 0xFF
        sync_end(fd)


# ---- dma-heap ----


class DmaHeapAlloc(ctypes.Structure):
    _fields_ = [("len", _U64), ("fd", _U32), ("fd_flags", _U32), ("heap_flags", _U64)]


DMA_HEAP_ALLOC = iowr("H", 0, ctypes.sizeof(DmaHeapAlloc))
HEAPS = Path("/dev/dma_heap")


def heaps() -> list[str]:
    """Names of the dma-heaps this kernel has."""
    return sorted(p.name for p in HEAPS.iterdir()) if HEAPS.is_dir() else []


def heap_alloc(size: int, heap: str = "system") -> int:
    """A dma-buf of size bytes from the heap; its fd."""
    with open_fd(HEAPS / heap) as fd:
        arg = DmaHeapAlloc(len=size, fd_flags=os.O_RDWR | os.O_CLOEXEC)
        ioctl(fd, DMA_HEAP_ALLOC, arg)
        return int(arg.fd)


# ---- udmabuf ----


class UdmabufCreate(ctypes.Structure):
    _fields_ = [("memfd", _U32), ("flags", _U32), ("offset", _U64), ("size", _U64)]


class UdmabufItem(ctypes.Structure):
    _fields_ = [("memfd", _U32), ("pad", _U32), ("offset", _U64), ("size", _U64)]


class UdmabufCreateList(ctypes.Structure):
    _fields_ = [("flags", _U32), ("count", _U32), ("items", UdmabufItem * 2)]


UDMABUF_CREATE = iow("u", 0x42, ctypes.sizeof(UdmabufCreate))
UDMABUF_CREATE_LIST = iow("u", 0x43, 8)
UDMABUF_CLOEXEC = 1
UDMABUF = Path("/dev/udmabuf")
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


def udmabuf_alloc(size: int, swapped: bool = False) -> int:
    """A dma-buf over the pages of a fresh memfd; its fd.

    A quiet machine may give a memfd one physical run; with `swapped` the second half comes
    first, so that there are two runs at least.
    """
    memfd = os.memfd_create("udmabuf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memfd, size)
        fcntl.fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK)
        with open_fd(UDMABUF) as fd:
            if not swapped:
                arg = UdmabufCreate(memfd, UDMABUF_CLOEXEC, 0, size)
                return fcntl.ioctl(fd, UDMABUF_CREATE, arg)
            half = size // PAGE // 2 * PAGE
            halves = UdmabufItem(memfd, 0, half, size - half), UdmabufItem(memfd, 0, 0, half)
            items = UdmabufCreateList(UDMABUF_CLOEXEC, 2, halves)
            return fcntl.ioctl(fd, UDMABUF_CREATE_LIST, items)
    finally:
        os.close(memfd)


# ---- DRM ----


class DrmVersion(ctypes.Structure):
    _fields_ = [
        ("major", _S32),
        ("minor", _S32),
        ("patch", _S32),
        ("name_len", _U64),
        ("name", _U64),
        ("date_len", _U64),
        ("date", _U64),
        ("desc_len", _U64),
        ("desc", _U64),
    ]


class DrmCreateDumb(ctypes.Structure):
    _fields_ = [
        ("height", _U32),
        ("width", _U32),
        ("bpp", _U32),
        ("flags", _U32),
        ("handle", _U32),
        ("pitch", _U32),
        ("size", _U64),
    ]


class DrmPrime(ctypes.Structure):
    _fields_ = [("handle", _U32), ("flags", _U32), ("fd", _S32)]


class DrmHandle(ctypes.Structure):
    _fields_ = [("handle", _U32), ("pad", _U32)]


DRM_VERSION = iowr("d", 0x00, ctypes.sizeof(DrmVersion))
DRM_GEM_CLOSE = iow("d", 0x09, ctypes.sizeof(DrmHandle))
DRM_PRIME_HANDLE_TO_FD = iowr("d", 0x2D, ctypes.sizeof(DrmPrime))
DRM_PRIME_FD_TO_HANDLE = iowr("d", 0x2E, ctypes.sizeof(DrmPrime))
DRM_CREATE_DUMB = iowr("d", 0xB2, ctypes.sizeof(DrmCreateDumb))
DRM_DESTROY_DUMB = iowr("d", 0xB4, 4)


def drm_driver(fd: int) -> str:
    """The driver behind an open DRM node ("vgem", "virtio_gpu", ...)."""
    name = ctypes.create_string_buffer(64)
    arg = DrmVersion(name_len=len(name) - 1, name=ctypes.addressof(name))
    ioctl(fd, DRM_VERSION, arg)
    return name.raw[: arg.name_len].decode()


def drm_open(driver: str) -> int | None:
    """An fd of the first card of that driver, or None."""
    for path in sorted(Path("/dev/dri").glob("card*")):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if drm_driver(fd) == driver:
            return fd
        os.close(fd)
    return None


class DrmDumb:
    """A dumb buffer of an open DRM card."""

    def __init__(self, card: int, width: int = 256, height: int = 256) -> None:
        arg = DrmCreateDumb(height=height, width=width, bpp=32)
        ioctl(card, DRM_CREATE_DUMB, arg)
        self.card, self.handle, self.size = card, int(arg.handle), int(arg.size)

    def export(self) -> int:
        """PRIME export; the dma-buf's fd."""
        arg = DrmPrime(handle=self.handle, flags=os.O_RDWR | os.O_CLOEXEC)
        ioctl(self.card, DRM_PRIME_HANDLE_TO_FD, arg)
        return int(arg.fd)

    def close(self) -> None:
        gem_close(self.card, self.handle)


def prime_import(card: int, fd: int) -> int:
    """PRIME import; the GEM handle. Raises OSError as the driver refuses."""
    arg = DrmPrime(fd=fd)
    ioctl(card, DRM_PRIME_FD_TO_HANDLE, arg)
    return int(arg.handle)


def gem_close(card: int, handle: int) -> None:
    """Drops a GEM handle."""
    ioctl(card, DRM_GEM_CLOSE, DrmHandle(handle))


# ---- V4L2 ----


class V4l2Capability(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", _U32),
        ("capabilities", _U32),
        ("device_caps", _U32),
        ("reserved", _U32 * 3),
    ]


class V4l2PixFormat(ctypes.Structure):
    _fields_ = [
        ("width", _U32),
        ("height", _U32),
        ("pixelformat", _U32),
        ("field", _U32),
        ("bytesperline", _U32),
        ("sizeimage", _U32),
        ("rest", _U32 * 6),
    ]


class V4l2FormatUnion(ctypes.Union):
    _fields_ = [("pix", V4l2PixFormat), ("raw", _U8 * 200), ("align", _U64)]


class V4l2Format(ctypes.Structure):
    _fields_ = [("type", _U32), ("fmt", V4l2FormatUnion)]


class V4l2RequestBuffers(ctypes.Structure):
    _fields_ = [
        ("count", _U32),
        ("type", _U32),
        ("memory", _U32),
        ("capabilities", _U32),
        ("flags", _U8),
        ("reserved", _U8 * 3),
    ]


class V4l2Memory(ctypes.Union):
    _fields_ = [("offset", _U32), ("userptr", _U64), ("planes", _U64), ("fd", _S32)]


class V4l2Buffer(ctypes.Structure):
    _fields_ = [
        ("index", _U32),
        ("type", _U32),
        ("bytesused", _U32),
        ("flags", _U32),
        ("field", _U32),
        ("tv_sec", _U64),
        ("tv_usec", _U64),
        ("timecode", _U8 * 16),
        ("sequence", _U32),
        ("memory", _U32),
        ("m", V4l2Memory),
        ("length", _U32),
        ("reserved2", _U32),
        ("request_fd", _S32),
    ]


class V4l2ExportBuffer(ctypes.Structure):
    _fields_ = [
        ("type", _U32),
        ("index", _U32),
        ("plane", _U32),
        ("flags", _U32),
        ("fd", _S32),
        ("reserved", _U32 * 11),
    ]


V4L2_CAPTURE = 1
V4L2_MMAP, V4L2_DMABUF = 1, 4
CAP_VIDEO_CAPTURE = 1
VIDIOC_QUERYCAP = _ioc(2, "V", 0, ctypes.sizeof(V4l2Capability))
VIDIOC_G_FMT = iowr("V", 4, ctypes.sizeof(V4l2Format))
VIDIOC_S_FMT = iowr("V", 5, ctypes.sizeof(V4l2Format))
VIDIOC_REQBUFS = iowr("V", 8, ctypes.sizeof(V4l2RequestBuffers))
VIDIOC_QUERYBUF = iowr("V", 9, ctypes.sizeof(V4l2Buffer))
VIDIOC_QBUF = iowr("V", 15, ctypes.sizeof(V4l2Buffer))
VIDIOC_EXPBUF = iowr("V", 16, ctypes.sizeof(V4l2ExportBuffer))


def v4l2_devices(driver: str) -> list[Path]:
    """Single-planar capture nodes of that driver, in the order of their numbers."""
    found = []
    nodes = Path("/dev").glob("video*")
    for path in sorted(nodes, key=lambda p: int(p.name.removeprefix("video"))):
        with open_fd(path) as fd:
            arg = V4l2Capability()
            ioctl(fd, VIDIOC_QUERYCAP, arg)
            if arg.driver.decode() == driver and arg.device_caps & CAP_VIDEO_CAPTURE:
                found.append(path)
    return found


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Closes a file descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def open_fd(path: Path) -> Iterator[int]:
    """An open file descriptor for the block."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
