/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contract between the probes and user space: one record layout for every event, and a
 * header for the scatterlist chunks of the second ring. dmabuf_tool/schema.py says the same in
 * numpy; tests/unit/test_schema.py compiles this file and holds the two together.
 *
 * Only fixed-width types; no kernel pointer ever stands in a record: objects go by ids that the
 * probes give at first sight. Id 0 means "none" or "unknown".
 */
#ifndef DMABUF_EVENTS_H
#define DMABUF_EVENTS_H

#define EVENT_COMM_LEN 16
#define EVENT_TEXT_LEN 40
#define EVENT_EXPORTER_LEN 24

enum event_kind {
	EV_BUFFER = 1,		/* a buffer that existed before the trace */
	EV_EXPORT = 2,
	EV_RELEASE = 3,
	EV_ATTACH = 4,
	EV_DETACH = 5,
	EV_MAP = 6,
	EV_UNMAP = 7,
	EV_PIN = 8,
	EV_UNPIN = 9,
	EV_CPU_BEGIN = 10,
	EV_CPU_END = 11,
	EV_INVALIDATE = 12,	/* move_notify up to 7.0, invalidate_mappings from 7.1 */
	EV_DEVICE = 13,		/* a device's limits, at each attach */
	EV_DEVICE_GONE = 14,
	EV_DOMAIN = 15,		/* an IOMMU domain, at first sight */
	EV_DOMAIN_ATTACH = 16,
	EV_DOMAIN_FREE = 17,
	EV_IOMMU_MAP = 18,		/* inside a dma-buf call: one for a run of adjacent IOVAs */
	EV_IOMMU_UNMAP = 19,
	EV_BOUNCE = 20,			/* inside a dma-buf call: one for all of its bounces */
	EV_NAME_BUFFER = 21,
	EV_NAME_DEVICE = 22,
	EV_NAME_DRIVER = 23,
	EV_NAME_BUS = 24,
	EV_CONTEXT = 25,
	EV_CONTEXT_FREE = 26,
	EV_LEVEL2_MAP = 27,
	EV_LEVEL2_UNMAP = 28,
	EV_FAULT = 29,
	EV_NAME_CONTEXT = 30,
	EV_RELEASED = 31,		/* the return from a release: how long it took */
	EV_LOG = 32,			/* a part of a line of the kernel log; in the ring only */
};

enum event_flag {
	EF_PREEXISTING = 0x0001,	/* the object is older than the trace */
	EF_CUT = 0x0002,		/* a name or a table is longer than what was taken */
	EF_CACHED = 0x0004,		/* the exporter's cached table: no mapping made or ended */
	EF_IN_ATTACH = 0x0008,		/* a map made inside dynamic attach, or ended inside detach */
	EF_DYNAMIC = 0x0010,		/* the importer gave attach ops */
	EF_PEER2PEER = 0x0020,		/* attachment->peer2peer after attach */
	EF_ALLOW_PEER2PEER = 0x0040,	/* importer_ops->allow_peer2peer */
	EF_EXPORTER_PINS = 0x0080,	/* the exporter has pin ops ("dynamic exporter") */
	EF_ELSEWHERE = 0x0100,		/* unmap through another attachment than the map's */
	EF_TRANSLATED = 0x0200,		/* the device's domain translates DMA API addresses */
	EF_COHERENT = 0x0400,
	EF_HAS_PARMS = 0x0800,		/* device->dma_parms is there */
	EF_HAS_MASK = 0x1000,		/* device->dma_mask is there */
	EF_UNKNOWN_TABLE = 0x2000,	/* unmap of a table the probes never saw mapped */
	EF_INSIDE = 0x4000,		/* inside a dma-buf call of this thread */
	EF_SEGMENTS_LOST = 0x8000,	/* a scatterlist chunk of this map found no room */
};

struct event {
	unsigned long long ts_ns;	/* CLOCK_MONOTONIC; at return, or at entry of what ends */
	unsigned long long duration_ns;	/* 0: not measured */
	char comm[EVENT_COMM_LEN];
	unsigned int tgid;
	unsigned int tid;
	int result;			/* 0 or -errno */
	unsigned short kind;
	unsigned short flags;
	unsigned int buffer;
	unsigned int attachment;	/* EV_DEVICE: the IOMMU group, ~0 for none */
	unsigned int mapping;
	unsigned int device;
	unsigned int domain;
	int stack;			/* key in the stack map, negative: none */
	union {
		unsigned long long words[5];
		char text[EVENT_TEXT_LEN];	/* EV_NAME_* */
		struct {			/* EV_BUFFER, EV_EXPORT, EV_RELEASE*, EV_ATTACH */
			unsigned long long size;
			unsigned long long ino;
			char exporter[EVENT_EXPORTER_LEN];
		} buf;
		struct {			/* EV_MAP, EV_UNMAP; EV_CPU_*: size and direction */
			unsigned long long size;	/* of the buffer, bytes */
			unsigned long long address;	/* DMA address of the first entry */
			unsigned int nents;
			unsigned int orig_nents;
			unsigned int copied;		/* scatterlist entries sent */
			int dma_errno;			/* of __dma_map_sg_attrs inside */
			unsigned int dma_attrs;
			unsigned int direction;		/* enum dma_data_direction */
		} map;
		struct {			/* EV_DEVICE; 0: not set */
			unsigned long long dma_mask;
			unsigned long long coherent_dma_mask;
			unsigned long long bus_dma_limit;
			unsigned long long segment_boundary_mask;
			unsigned int max_segment_size;
			unsigned int min_align_mask;
		} dev;
		struct {			/* EV_DOMAIN, EV_DOMAIN_ATTACH */
			unsigned long long pgsize_bitmap;
			unsigned long long aperture_start;
			unsigned long long aperture_end;
			unsigned int type;
			unsigned int group;
			unsigned int old_domain;
			unsigned int spare;
		} dom;
		struct {			/* EV_IOMMU_MAP, EV_IOMMU_UNMAP, EV_BOUNCE */
			unsigned long long iova;	/* EV_BOUNCE: the first address before */
			unsigned long long paddr;	/* of the first call */
			unsigned long long size;
			unsigned long long done;	/* bytes really mapped or unmapped */
			unsigned int prot;
			unsigned int calls;		/* calls told by this event */
		} iommu;
		struct {			/* EV_LEVEL2_*, EV_CONTEXT; the id is `mapping` */
			unsigned long long address;	/* in the context's space */
			unsigned long long size;
			unsigned long long offset;	/* in the buffer */
			unsigned int context;
			unsigned int provider;
			unsigned int owner;		/* tgid, 0 unknown */
			unsigned int client;		/* DRM client id, asid or pasid */
		} l2;
	};
};

/* A scatterlist chunk: this header, then `count` raw struct scatterlist of 32 bytes. */
struct chunk_header {
	unsigned int mapping;
	unsigned int first;		/* index of the chunk's first entry in the table */
	unsigned int count;
	unsigned int total;		/* entries in the whole table */
};

/* The counters of the per-CPU array `stats`. */
enum stat {
	ST_EVENTS_LOST = 0,		/* no room in the event ring */
	ST_SEGMENTS_LOST = 1,		/* no room in the scatterlist ring: entries */
	ST_UNTRACKED = 2,		/* an id map was full */
	ST_CALLS_LOST = 3,		/* a return without its entry, or too deep nesting */
	ST_DROPPED_IOMMU = 4,		/* iommu traffic that is not ours: counted, not sent */
	ST_COUNT = 5,
};

#endif
