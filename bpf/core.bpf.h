/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every subject shares: the rings, the ids, the per-thread frames of dma-buf calls, and how
 * an event is begun and sent. The loader puts this file in front of the subjects and hands bcc
 * one text: bcc rewrites map accesses only in its main file.
 *
 * A handler is on_<hook>_entry(struct call *) or on_<hook>_exit(struct call *). The loader writes
 * the programs around them, for fentry/fexit, kprobes or raw tracepoints (probes/source.py), so
 * that a handler never knows how it was reached.
 */

struct call {
	u64 arg[5];
	u64 ret;
	void *ctx;
};

#define MAX_ERRNO 4095
#define IS_ERR(p) ((u64)(p) >= (u64)-MAX_ERRNO)

/* Read one member of a kernel struct (struct definitions: generated from BTF). */
#define READ(ptr, member) ({						\
	typeof((ptr)->member) _value = 0;				\
	bpf_probe_read_kernel(&_value, sizeof(_value), &(ptr)->member);	\
	_value; })

BPF_RINGBUF_OUTPUT(events, EVENT_RING_PAGES);
BPF_RINGBUF_OUTPUT(chunks, CHUNK_RING_PAGES);

struct counters {
	u64 n[ST_COUNT];
};
BPF_TABLE("percpu_array", int, struct counters, stats, 1);

/* The ids: one counter for each kind of object, starting at 1. */
enum id_kind { ID_BUFFER, ID_ATTACHMENT, ID_MAPPING, ID_DEVICE, ID_DOMAIN, ID_CONTEXT, ID_KINDS };
BPF_TABLE("array", int, u64, ids, ID_KINDS);

struct buffer {
	u32 id;
	u32 preexisting;
	u64 name;		/* the dma_buf's name pointer when it was last sent */
};

struct attachment {
	u32 id;
	u32 buffer;
	u32 device;
	u32 framed;		/* unmap and detach may call what is hooked: IOMMU, unpin */
	u32 preexisting;
	u32 spare;
};

struct mapping {
	u32 id;
	u32 attachment;
};

BPF_TABLE("hash", u64, struct buffer, buffers, 65536);
BPF_TABLE("hash", u64, struct attachment, attachments, 65536);
BPF_TABLE("hash", u64, struct mapping, mappings, 131072);
BPF_TABLE("hash", u64, u32, devices, 8192);
BPF_TABLE("hash", u64, u32, domains, 16384);

/*
 * What a thread is doing: map, unmap, attach and detach call into the DMA API and the IOMMU
 * core, and map nests inside dynamic attach. A frame lives from entry to return. The map is LRU
 * so that a thread that died inside a call leaves nothing behind for long.
 */
enum frame_kind { FRAME_NONE, FRAME_ATTACH, FRAME_DETACH, FRAME_MAP, FRAME_UNMAP };

struct frame {
	u64 key;		/* attachment or, for attach, dma_buf */
	u64 device_ptr;
	u64 start_ns;
	u32 kind;
	u32 buffer;
	u32 attachment;
	u32 mapping;
	u32 device;
	s32 dma_errno;
	u32 dma_attrs;
	u32 domain;
	u64 iova, iova_end, paddr;	/* iommu_map() calls so far, as one run of IOVAs */
	u32 iommu_calls;
	u32 prot;
	u64 bounce_address, bounce_bytes;
	u32 bounces;
	u32 spare;
};

#define FRAMES 4
struct thread {
	u32 depth;
	u32 spare;
	struct frame frame[FRAMES];
};

BPF_TABLE("lru_hash", u32, struct thread, threads, 8192);
BPF_TABLE("percpu_array", int, struct thread, no_frames, 1);

static inline void count(int which, u64 n)
{
	int zero = 0;
	struct counters *counters = stats.lookup(&zero);

	if (counters)
		counters->n[which] += n;
}

/*
 * The next id of a kind. The backend of older bcc cannot emit an atomic fetch-and-add, so a store
 * with a telling offset stands for one and the loader puts the real instruction in its place
 * (BPF_FETCH, Linux 5.12: 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg")).
 */
static inline u32 next_id(int kind)
{
	u64 *counter = ids.lookup(&kind);
	u64 id = 1;

	if (!counter)
		return 0;
	asm volatile("*(u64 *)(%1 + 0x7af0) = %0" : "+r"(id) : "r"(counter) : "memory");
	return id + 1;
}

static inline struct event *begin(int kind)
{
	struct event *e = events.ringbuf_reserve(sizeof(struct event));
	u64 pid;

	if (!e) {
		count(ST_EVENTS_LOST, 1);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	pid = bpf_get_current_pid_tgid();
	e->ts_ns = bpf_ktime_get_ns();
	e->tgid = pid >> 32;
	e->tid = pid;
	e->kind = kind;
	e->stack = -1;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	return e;
}

/* No wake-up: it costs the traced path 400 ns; user space drains on a timer. */
static inline void submit(struct event *e)
{
	events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static inline struct thread *thread_of(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return threads.lookup(&tid);
}

/* The barrier and the mask keep the bound where the verifier can see it. */
static inline struct frame *frame_at(struct thread *thread, u64 index)
{
	asm volatile("" : "+r"(index));
	return &thread->frame[index & (FRAMES - 1)];
}

/* The innermost frame of this thread, or NULL outside of any dma-buf call. */
static inline struct frame *frame_of(void)
{
	struct thread *thread = thread_of();
	u32 depth;

	if (!thread)
		return NULL;
	depth = thread->depth;
	if (!depth || depth > FRAMES)
		return NULL;
	return frame_at(thread, depth - 1);
}

/*
 * A frame left behind by a return that was never seen is dropped when its key comes again: no
 * call nests inside itself on one attachment, the reservation lock is held.
 */
static inline struct frame *push_frame(int kind, u64 key)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	struct frame *frame;
	u32 depth;

	if (!thread) {
		int zero = 0;
		struct thread *fresh = no_frames.lookup(&zero);

		if (!fresh)
			return NULL;
		threads.update(&tid, fresh);
		thread = threads.lookup(&tid);
		if (!thread)
			return NULL;
	}
	depth = thread->depth;
	if (depth) {
		frame = frame_at(thread, depth - 1);
		if (frame->key == key && frame->kind == kind) {
			depth--;
			count(ST_CALLS_LOST, 1);
		}
	}
	if (depth >= FRAMES) {
		count(ST_CALLS_LOST, 1);
		return NULL;
	}
	frame = frame_at(thread, depth);
	__builtin_memset(frame, 0, sizeof(*frame));
	frame->kind = kind;
	frame->key = key;
	frame->start_ns = bpf_ktime_get_ns();
	thread->depth = depth + 1;
	return frame;
}

/* The frame of the call that returns; it stays readable until the next push. */
static inline struct frame *pop_frame(int kind, u64 key)
{
	struct thread *thread = thread_of();
	struct frame *frame;
	u32 depth;

	if (!thread)
		return NULL;
	depth = thread->depth;
	if (!depth || depth > FRAMES)
		return NULL;
	depth--;
	frame = frame_at(thread, depth);
	if (frame->key != key || frame->kind != kind) {
		/* An inner return was missed: look one further out. */
		if (!depth)
			return NULL;
		depth--;
		frame = frame_at(thread, depth);
		if (frame->key != key || frame->kind != kind)
			return NULL;
		count(ST_CALLS_LOST, 1);
	}
	thread->depth = depth;
	return frame;
}

static inline void from_frame(struct event *e, struct frame *frame)
{
	e->flags = EF_INSIDE;
	e->buffer = frame->buffer;
	e->attachment = frame->attachment;
	e->mapping = frame->mapping;
	e->device = frame->device;
}

/* A scattered buffer is a thousand iommu_map() calls: tell them as one run of adjacent IOVAs. */
static inline void send_iommu_run(struct frame *frame)
{
	struct event *e = begin(EV_IOMMU_MAP);

	if (e) {
		from_frame(e, frame);
		e->domain = frame->domain;
		e->iommu.iova = frame->iova;
		e->iommu.paddr = frame->paddr;
		e->iommu.size = frame->iova_end - frame->iova;
		e->iommu.done = e->iommu.size;
		e->iommu.prot = frame->prot;
		e->iommu.calls = frame->iommu_calls;
		submit(e);
	}
	frame->iommu_calls = 0;
}

/* What a call that makes a mapping gathered on its way. */
static inline void send_gathered(struct frame *frame)
{
	struct event *e;

	if (!frame)
		return;
	if (frame->iommu_calls)
		send_iommu_run(frame);
	if (!frame->bounces)
		return;
	e = begin(EV_BOUNCE);
	if (!e)
		return;
	from_frame(e, frame);
	e->iommu.iova = frame->bounce_address;
	e->iommu.size = frame->bounce_bytes;
	e->iommu.calls = frame->bounces;
	submit(e);
}

static inline void send_name(int kind, u32 buffer, u32 device, const char *name)
{
	struct event *e;
	long n;

	if (!name)
		return;
	e = begin(kind);
	if (!e)
		return;
	e->buffer = buffer;
	e->device = device;
	n = bpf_probe_read_kernel_str(e->text, sizeof(e->text), name);
	if (n == sizeof(e->text))
		e->flags = EF_CUT;
	submit(e);
}

static inline struct iommu_domain *domain_of(struct device *dev)
{
	struct iommu_group *group = READ(dev, iommu_group);

	return group ? READ(group, domain) : NULL;
}

/* The id of an IOMMU domain; one seen for the first time is described. */
static inline u32 domain_id(struct iommu_domain *domain, u32 group)
{
	u64 key = (u64)domain;
	u32 *known, id;
	struct event *e;

	if (!domain)
		return 0;
	known = domains.lookup(&key);
	if (known)
		return *known;
	id = next_id(ID_DOMAIN);
	if (domains.update(&key, &id)) {
		count(ST_UNTRACKED, 1);
		return 0;
	}
	e = begin(EV_DOMAIN);
	if (!e)
		return id;
	e->domain = id;
	e->dom.group = group;
	e->dom.type = READ(domain, type);
	e->dom.pgsize_bitmap = READ(domain, pgsize_bitmap);
	e->dom.aperture_start = READ(domain, geometry_aperture_start);
	e->dom.aperture_end = READ(domain, geometry_aperture_end);
	submit(e);
	return id;
}

static inline int is_coherent(struct device *dev)
{
#if defined(DEVICE_DMA_COHERENT_MASK)
	/* A bit field on architectures that can be non-coherent, up to 7.1. */
	u8 byte = 0;

	bpf_probe_read_kernel(&byte, 1, (u8 *)dev + DEVICE_DMA_COHERENT_BYTE);
	return !!(byte & DEVICE_DMA_COHERENT_MASK);
#elif defined(DEV_FLAG_DMA_COHERENT) && !defined(__TARGET_ARCH_x86)
	/* From 7.2 a bit of device.flags[]. */
	return !!(READ(dev, flags) & (1UL << DEV_FLAG_DMA_COHERENT));
#else
	return 1;	/* x86 has no such flag: always coherent */
#endif
}

/*
 * The id of a device. At first sight its names go ahead; `describe` sends its limits, which a
 * driver may change until it attaches.
 */
static inline u32 device_id(struct device *dev, bool describe)
{
	struct device_dma_parameters *parms;
	struct iommu_domain *domain = NULL;
	struct iommu_group *group;
	struct device_driver *driver;
	struct bus_type *bus;
	u64 key = (u64)dev, *mask;
	u32 *known, id, group_id = ~0u, domain_no = 0;
	struct event *e;

	if (!dev)
		return 0;
	known = devices.lookup(&key);
	if (known && !describe)
		return *known;
	if (known) {
		id = *known;
	} else {
		id = next_id(ID_DEVICE);
		if (devices.update(&key, &id)) {
			count(ST_UNTRACKED, 1);
			return 0;
		}
		send_name(EV_NAME_DEVICE, 0, id, READ(dev, kobj_name));
		bus = READ(dev, bus);
		if (bus)
			send_name(EV_NAME_BUS, 0, id, READ(bus, name));
		driver = READ(dev, driver);
		if (driver)
			send_name(EV_NAME_DRIVER, 0, id, READ(driver, name));
	}
	group = READ(dev, iommu_group);
	if (group) {
		group_id = READ(group, id);
		domain = READ(group, domain);
		domain_no = domain_id(domain, group_id);
	}
	e = begin(EV_DEVICE);
	if (!e)
		return id;
	e->device = id;
	e->attachment = group_id;
	e->domain = domain_no;
	mask = READ(dev, dma_mask);
	if (mask) {
		e->flags |= EF_HAS_MASK;
		bpf_probe_read_kernel(&e->dev.dma_mask, sizeof(u64), mask);
	}
	e->dev.coherent_dma_mask = READ(dev, coherent_dma_mask);
	e->dev.bus_dma_limit = READ(dev, bus_dma_limit);
	parms = READ(dev, dma_parms);
	if (parms) {
		e->flags |= EF_HAS_PARMS;
		e->dev.max_segment_size = READ(parms, max_segment_size);
		e->dev.min_align_mask = READ(parms, min_align_mask);
		e->dev.segment_boundary_mask = READ(parms, segment_boundary_mask);
	}
	if (is_coherent(dev))
		e->flags |= EF_COHERENT;
	if (domain && (READ(domain, type) & IOMMU_DOMAIN_DMA_API))
		e->flags |= EF_TRANSLATED;
	submit(e);
	return id;
}

static inline u64 inode_number(struct dma_buf *d)
{
	struct file *file = READ(d, file);
	struct inode *inode = file ? READ(file, f_inode) : NULL;

	return inode ? READ(inode, i_ino) : 0;
}

static inline void describe_buffer(struct event *e, struct dma_buf *d)
{
	const char *exporter = READ(d, exp_name);

	e->buf.size = READ(d, size);
	e->buf.ino = inode_number(d);
	if (bpf_probe_read_kernel_str(e->buf.exporter, sizeof(e->buf.exporter), exporter) ==
	    sizeof(e->buf.exporter))
		e->flags |= EF_CUT;
}

/* The id of a buffer. One that was never seen exported is older than the trace. */
static inline struct buffer *buffer_of(struct dma_buf *d)
{
	u64 key = (u64)d;
	struct buffer *known = buffers.lookup(&key);
	struct buffer fresh = { .preexisting = 1 };
	struct event *e;

	if (known)
		return known;
	fresh.id = next_id(ID_BUFFER);
	if (buffers.update(&key, &fresh)) {
		count(ST_UNTRACKED, 1);
		return NULL;
	}
	e = begin(EV_BUFFER);
	if (e) {
		e->buffer = fresh.id;
		e->flags = EF_PREEXISTING;
		describe_buffer(e, d);
		submit(e);
	}
	return buffers.lookup(&key);
}
