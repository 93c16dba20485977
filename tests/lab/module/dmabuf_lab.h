/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The lab driver's interface to user space: one device, /dev/dmabuf_lab, one ioctl,
 * one struct. Every operation that calls into the kernel's dma-buf, DMA or IOMMU code is
 * written to /sys/kernel/debug/dmabuf_lab/log when it returns; an operation refused here,
 * before any such call (unknown handle, bad argument), is not.
 *
 * tests/lab/workloads/lab.py mirrors this file.
 */
#ifndef DMABUF_LAB_H
#define DMABUF_LAB_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LAB_VERSION	1

/*
 * Handles (attachment, map, context) count up from 1 and are never used again while the
 * module is loaded. Any open file may use any handle; what a file made is undone when it
 * is closed (and logged as such), unless LAB_F_LEAK was given.
 */
enum lab_op {
	LAB_OP_INFO = 0,	/* -> version, count = device slots, capacity in size */
	LAB_OP_DEVICE = 1,	/* device -> name, kind, addr = dma_mask, count = users */
	LAB_OP_PLATFORM = 2,	/* mask_bits, max_seg, boundary, min_align, limit, flags -> device */
	LAB_OP_PLATFORM_DESTROY = 3,	/* device; -EBUSY while something uses it */

	LAB_OP_EXPORT = 10,	/* size, run_pages, shape, fail_*, delay_ms, flags -> fd, ino;
				 * with LAB_F_P2P: device, an edu */
	LAB_OP_MOVE = 11,	/* fd of an own buffer; LAB_F_NEW_PAGES, LAB_F_NO_NOTIFY */
	LAB_OP_CPU_BEGIN = 12,	/* fd of any buffer, direction */
	LAB_OP_CPU_END = 13,

	LAB_OP_ATTACH = 20,	/* fd, device, LAB_F_DYNAMIC, _P2P, _LEAK -> attachment */
	LAB_OP_DETACH = 21,	/* attachment; LAB_F_FORCE drops live mappings and pins */
	LAB_OP_PIN = 22,	/* attachment, dynamic only */
	LAB_OP_UNPIN = 23,
	LAB_OP_MAP = 24,	/* attachment, direction, LAB_F_ONE_RUN -> map and its table */
	LAB_OP_UNMAP = 25,	/* map */
	LAB_OP_MAP_LOOP = 26,	/* attachment, direction, count -> ns; one log line for all */

	LAB_OP_CONTEXT_CREATE = 30,	/* kind, device, LAB_F_BY_BUS -> context */
	LAB_OP_CONTEXT_FREE = 31,	/* context */
	LAB_OP_CONTEXT_ATTACH = 32,	/* context: its device leaves the DMA domain for it */
	LAB_OP_CONTEXT_DETACH = 33,	/* context: its device goes back */
	LAB_OP_L2_MAP = 34,	/* context, map, va, offset, size (0: the rest), source; LAB_F_FORCE over itself */
	LAB_OP_L2_UNMAP = 35,	/* context, va, size -> size; LAB_F_FORCE over holes of a domain */
	LAB_OP_EDU_DMA = 36,	/* device (edu), addr, size, direction; moves real bytes */

	LAB_OP_MARK = 40,	/* count: writes a line with that number */
	LAB_OP_LOG_CLEAR = 41,	/* forgets the lines; seq goes on */
	LAB_OP_RESET = 42,	/* undoes everything of everybody, leaks and devices too */
};

/* flags; each operation reads the ones named above. */
#define LAB_F_DYNAMIC		(1u << 0)	/* exporter with pin; importer with move_notify */
/* importer allows peer to peer; exporter grants it where PCI lets its device be reached */
#define LAB_F_P2P		(1u << 1)
#define LAB_F_LEAK		(1u << 2)	/* survives the file; gone at LAB_OP_RESET or rmmod */
#define LAB_F_FORCE		(1u << 3)
#define LAB_F_CACHE_SGT		(1u << 4)	/* exporter: cache_sgt_mapping, -EOPNOTSUPP if gone */
#define LAB_F_DMA32		(1u << 5)	/* exporter: pages below 4 GiB */
#define LAB_F_SKIP_SYNC		(1u << 6)	/* exporter maps with DMA_ATTR_SKIP_CPU_SYNC */
#define LAB_F_FAIL_NULL		(1u << 7)	/* a failing map returns NULL, not fail_error */
#define LAB_F_DELAY_ATTACH	(1u << 8)	/* delay_ms is spent here, not in map */
#define LAB_F_DELAY_RELEASE	(1u << 9)
#define LAB_F_ONE_RUN		(1u << 10)	/* importer wants one DMA-contiguous run or none */
#define LAB_F_NEW_PAGES		(1u << 11)	/* move: to other pages */
#define LAB_F_NO_NOTIFY		(1u << 12)	/* move: tell no importer */
#define LAB_F_NO_PARMS		(1u << 13)	/* platform device without dma_parms */
#define LAB_F_COHERENT		(1u << 14)	/* platform device, arm64: DMA-coherent */
#define LAB_F_IGNORE_MOVE	(1u << 15)	/* importer: keeps quiet and mapped at move_notify */
#define LAB_F_UNALIGNED		(1u << 16)	/* exporter: runs start a page off a power of two */
#define LAB_F_BY_BUS		(1u << 17)	/* domain: by iommu_domain_alloc() where it is */

/* fail_step: where an own buffer refuses. */
enum lab_fail {
	LAB_FAIL_NONE = 0,
	LAB_FAIL_ATTACH = 1,
	LAB_FAIL_MAP = 2,
	LAB_FAIL_PIN = 3,
};

/* shape: what an own buffer's tables look like. The DMA side is forged, the pages are not. */
enum lab_shape {
	LAB_SHAPE_HONEST = 0,
	LAB_SHAPE_LONG = 1,		/* one entry for everything */
	LAB_SHAPE_BOUNDARY = 2,		/* the first entry crosses the device's boundary */
	LAB_SHAPE_BEYOND_MASK = 3,	/* the last entry starts above the dma_mask */
	LAB_SHAPE_MISALIGNED = 4,	/* the first entry starts 512 bytes late */
	LAB_SHAPE_SHORT = 5,		/* the last page is missing */
	LAB_SHAPE_PAGELESS = 6,		/* orig_nents = 0 */
	LAB_SHAPE_MANY_RUNS = 7,	/* one entry a page, neighbours swapped */
	LAB_SHAPE_UNTRANSLATED = 8,	/* physical addresses, the DMA API was not asked */
	LAB_SHAPE_BAR = 9,		/* a PCI device's own registers, no pages, no DMA API */
	LAB_SHAPE_COUNT
};

enum lab_kind {
	LAB_KIND_NONE = 0,
	LAB_KIND_EDU = 1,		/* device: QEMU edu, PCI */
	LAB_KIND_PLATFORM = 2,		/* device: platform, no IOMMU */
	LAB_KIND_DOMAIN = 3,		/* context: private IOMMU domain of an edu device */
	LAB_KIND_GPUVM = 4,		/* context: drm_gpuvm; needs dmabuf_lab_vm.ko */
};

enum lab_source {
	LAB_SOURCE_DMA = 0,		/* level 2 is fed from DMA addresses: nested */
	LAB_SOURCE_PAGES = 1,		/* level 2 is fed from pages: level 1 bypassed */
};

/* direction: as enum dma_data_direction, 0 bidirectional, 1 to device, 2 from device. */

struct lab_req {
	__u32 op;		/* in: enum lab_op */
	__u32 flags;		/* in */
	__s32 fd;		/* in, EXPORT out */
	__u32 device;		/* in, PLATFORM out */
	__u32 attachment;	/* in, ATTACH out */
	__u32 map;		/* in, MAP out */
	__u32 context;		/* in, CONTEXT_CREATE out */
	__u32 direction;	/* in */
	__u32 kind;		/* in, DEVICE out */
	__u32 source;		/* in */
	__u32 shape;		/* in */
	__u32 fail_step;	/* in */
	__u32 fail_error;	/* in: positive errno */
	__u32 fail_count;	/* in: how often, 0 always */
	__u32 delay_ms;		/* in */
	__u32 run_pages;	/* in: pages of a physical run, a power of 2; 0 one run */
	__u32 mask_bits;	/* in: 24..64 */
	__u32 max_seg;		/* in: 0 not set */
	__u32 min_align;	/* in: a mask below 64 KiB, 0 not set */
	__u32 count;		/* in; INFO, DEVICE out */
	__u64 boundary;		/* in: a mask, 0 not set */
	__u64 limit;		/* in: bus_dma_limit, 0 none */
	__u64 size;		/* in; L2_UNMAP out: bytes unmapped */
	__u64 offset;		/* in */
	__u64 va;		/* in */
	__u64 addr;		/* in; DEVICE out */
	__u64 ino;		/* out: of the buffer concerned */
	__u64 ns;		/* out: time in the kernel's function(s) */
	__u64 dma_addr;		/* MAP out: first entry, DMA side */
	__u64 dma_len;		/* MAP out: first entry, bytes */
	__u64 dma_sum;		/* MAP out: all entries, bytes */
	__u32 nents;		/* MAP out */
	__u32 orig_nents;	/* MAP out */
	__u32 version;		/* INFO out */
	__u32 reserved;
	char name[32];		/* DEVICE out: dev_name() */
};

#define LAB_IOC_REQ	_IOWR('L', 1, struct lab_req)

#endif
