/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/*
 * What a call that makes a mapping gathered on its way: a scattered buffer is a thousand
 * iommu_map() calls, told as one run of adjacent IOVAs; bounces are told in one event.
 */
static inline void send_gathered(struct frame *frame)
{
	struct event *e;
	int i;

	if (!frame)
		return;
	for (i = 0; i < 2; i++) {
		KEEP_LOOP(i);
		if (i ? !frame->bounces : !frame->iommu_calls)
			continue;
		e = begin(i ? EV_BOUNCE : EV_IOMMU_MAP);
		if (!e)
			continue;
		from_frame(e, frame);
		if (i) {
			e->iommu.iova = frame->bounce_address;
			e->iommu.size = frame->bounce_bytes;
			e->iommu.calls = frame->bounces;
		} else {
			e->domain = frame->domain;
			e->iommu.iova = frame->iova;
			e->iommu.paddr = frame->paddr;
			e->iommu.size = frame->iova_end - frame->iova;
			e->iommu.done = e->iommu.size;
			e->iommu.prot = frame->prot;
			e->iommu.calls = frame->iommu_calls;
		}
		submit(e);
	}
	frame->iommu_calls = 0;
	frame->bounces = 0;
}
