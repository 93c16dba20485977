/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a thread is doing: map, unmap, attach and detach call into the DMA API and the IOMMU
 * core, and map nests inside dynamic attach. A frame lives from entry to return.
 */
enum frame_kind { FRAME_NONE, FRAME_ATTACH, FRAME_DETACH, FRAME_MAP, FRAME_UNMAP };

struct frame {
	u64 key;		/* attachment or, for attach, dma_buf */
	u64 stack;		/* where the entry's program had its context: deeper is lower */
	u64 device_ptr;
	u64 domain_ptr;
	u64 start_ns;
	u32 kind;
	u32 buffer;
	u32 attachment;
	u32 mapping;
	u32 device;
	u32 preexisting;
	s32 dma_errno;
	u32 dma_attrs;
	u64 iova, iova_end, paddr;	/* iommu_map() calls so far, as one run of IOVAs */
	u64 iommu_stamp;		/* of the last of them, from one twin to the other */
	u32 iommu_calls;
	u32 prot;
	u64 bounce_address, bounce_bytes;
	u32 bounces;
	u32 dma_stamp;
	s32 caller;			/* of an attach: its call stack */
	u32 spare;
};

/*
 * A thread has its place in an array, by the low bits of its tid: an eighth of the cost of a hash
 * table. Who comes while another has the place goes to the crowd; `claims` is how many want it.
 * A thread that dies inside a call keeps its place, and what shares it with it is only slower.
 */
#define FRAMES 4
#define THREADS 4096
struct thread {
	u64 claims;
	u32 tid;		/* whose place it is; 0: nobody's, or one of the crowd */
	u32 depth;
	struct frame frame[FRAMES];
};

BPF_TABLE("array", u32, struct thread, threads, THREADS);
BPF_TABLE("lru_hash", u32, struct thread, crowd, 1024);
BPF_TABLE("percpu_array", int, struct thread, no_frames, 1);

/* This thread, if it is inside of a dma-buf call. */
static inline struct thread *thread_of(u32 tid)
{
	u32 place = tid & (THREADS - 1);
	struct thread *thread = threads.lookup(&place);

	if (!thread || thread->tid == tid)
		return thread;
	return thread->claims ? crowd.lookup(&tid) : NULL;
}

/* This thread, to be inside of one. */
static inline struct thread *enter_thread(u32 tid)
{
	u32 place = tid & (THREADS - 1);
	struct thread *thread = threads.lookup(&place), *fresh;
	int zero = 0;

	if (!thread || thread->tid == tid)
		return thread;
	if (thread->claims) {
		fresh = crowd.lookup(&tid);
		if (fresh)
			return fresh;
	}
	if (!fetch_add(&thread->claims, 1)) {
		thread->depth = 0;
		thread->tid = tid;
		return thread;
	}
	fresh = no_frames.lookup(&zero);
	if (fresh)
		crowd.update(&tid, fresh);
	return crowd.lookup(&tid);
}

/* The end of a handler that popped a frame: outside of all calls the place is free. */
static inline void leave_thread(u32 tid, struct thread *thread)
{
	u32 place = tid & (THREADS - 1);

	if (!thread || thread->depth)
		return;
	if (thread->tid == tid) {
		thread->tid = 0;
	} else {
		thread = threads.lookup(&place);
		if (!thread || crowd.delete(&tid))
			return;
	}
	fetch_add(&thread->claims, -1);
}

/* The barrier and the mask keep the bound where the verifier can see it. */
static inline struct frame *frame_at(struct thread *thread, u64 index)
{
	asm volatile("" : "+r"(index));
	return &thread->frame[index & (FRAMES - 1)];
}

/*
 * The innermost frame of this thread, or NULL outside of any dma-buf call. What a call calls is
 * deeper in the stack: a frame that is not above is a call's whose return was never seen.
 */
static inline struct frame *frame_of(struct call *c)
{
	struct thread *thread = thread_of(c->tid);
	struct frame *frame;
	u32 depth;

	if (!thread)
		return NULL;
	depth = thread->depth;
	if (!depth || depth > FRAMES)
		return NULL;
	frame = frame_at(thread, depth - 1);
	return frame->stack > number((u64)c->ctx) ? frame : NULL;
}

static inline bool is_frame(struct frame *frame, int kind, u64 key)
{
	return frame->key == key && frame->kind == kind;
}

/* Whether the call makes a mapping. */
static inline bool is_making(struct frame *frame)
{
	return frame->kind == FRAME_MAP || frame->kind == FRAME_ATTACH;
}

/*
 * Enter a call. NULL with `told` when the first of two programs did; NULL alone when there is no
 * room. Frames of calls whose return was never seen are dropped: they are not above this one in
 * the stack, or have its key (no call nests inside itself on one attachment, the reservation lock
 * is held). Only of kretprobes the kernel does not count what it skipped.
 */
static inline struct frame *push_frame(struct call *c, int kind, u64 key, bool *told)
{
	u64 stack = number((u64)c->ctx);
	struct thread *thread;
	struct frame *frame;
	u32 depth, i;

	if (role() == SECOND) {
		thread = thread_of(c->tid);
		depth = thread ? thread->depth : 0;
		frame = depth && depth <= FRAMES ? frame_at(thread, depth - 1) : NULL;
		*told = depth >= FRAMES || (frame && is_frame(frame, kind, key) && frame->stack == stack);
		if (*told)
			return NULL;
		take_over(c);
	}
	thread = enter_thread(c->tid);
	if (!thread)
		return NULL;
	depth = thread->depth;
	for (i = 0; i < FRAMES; i++) {
		KEEP_LOOP(i);
		if (!depth)
			break;
		frame = frame_at(thread, depth - 1);
		if (frame->stack > stack && !is_frame(frame, kind, key))
			break;
		depth--;
		if (FACT(KRETPROBES))
			count(ST_CALLS_LOST, 1);
	}
	if (depth >= FRAMES) {
		count(ST_CALLS_LOST, 1);
		return NULL;
	}
	frame = frame_at(thread, depth);
	__builtin_memset(frame, 0, sizeof(*frame));
	frame->kind = kind;
	frame->key = key;
	frame->stack = stack;
	if (is_making(frame))
		frame->start_ns = bpf_ktime_get_ns();
	thread->depth = depth + 1;
	return frame;
}

/*
 * Leave a call: the frame that its entry made, which may be read until leave_thread(). With twins
 * the first takes it, and the second finds one only where the first was skipped.
 */
static inline struct frame *pop_frame(struct call *c, struct thread *thread, int kind, u64 key)
{
	struct frame *frame;
	u32 depth, i;

	if (!thread)
		return NULL;
	depth = thread->depth;
	if (depth > FRAMES)
		return NULL;
	for (i = 0; i < 2; i++) {	/* an inner return was missed: one further out */
		KEEP_LOOP(i);
		if (!depth)
			return NULL;
		depth--;
		frame = frame_at(thread, depth);
		if (!is_frame(frame, kind, key))
			continue;
		if (i && FACT(KRETPROBES))
			count(ST_CALLS_LOST, 1);
		if (role() == SECOND)
			take_over(c);
		thread->depth = depth;
		return frame;
	}
	return NULL;
}

static inline void frame_device(struct frame *frame, struct device *dev)
{
	struct iommu_group *group = LOAD(dev, iommu_group);

	frame->device_ptr = (u64)dev;
	frame->domain_ptr = group ? (u64)LOAD(group, domain) : 0;
}

static inline void from_frame(struct event *e, struct frame *frame)
{
	e->flags = EF_INSIDE;
	e->buffer = frame->buffer;
	e->attachment = frame->attachment;
	e->mapping = frame->mapping;
	e->device = frame->device;
}

static inline void fill_iommu_map(struct event *e, struct frame *frame, u32 domain)
{
	from_frame(e, frame);
	e->domain = domain;
	e->iommu.iova = frame->iova;
	e->iommu.paddr = frame->paddr;
	e->iommu.size = frame->iova_end - frame->iova;
	e->iommu.done = e->iommu.size;
	e->iommu.prot = frame->prot;
	e->iommu.calls = frame->iommu_calls;
}

static inline u32 gathered_domain(struct frame *frame)
{
	if (!frame || !frame->iommu_calls)
		return 0;
	return domain_id((struct iommu_domain *)frame->domain_ptr, ~0u);
}

/*
 * What a call that makes a mapping gathered on its way: a scattered buffer is a thousand
 * iommu_map() calls, told as one run of adjacent IOVAs; bounces are told in one event.
 */
SUBPROGRAM(int, tell_gathered, struct frame *frame; u64 domain;)
{
	struct frame *frame = a->frame;
	struct event *e;
	int i;

	for (i = 0; i < 2; i++) {
		KEEP_LOOP(i);
		if (i ? !frame->bounces : !frame->iommu_calls)
			continue;
		e = begin(i ? EV_BOUNCE : EV_IOMMU_MAP);
		if (!e)
			continue;
		if (i) {
			from_frame(e, frame);
			e->iommu.iova = frame->bounce_address;
			e->iommu.size = frame->bounce_bytes;
			e->iommu.calls = frame->bounces;
		} else {
			fill_iommu_map(e, frame, a->domain);
		}
		submit(e);
	}
	frame->iommu_calls = 0;
	frame->bounces = 0;
	return 0;
}

static inline void send_gathered(struct frame *frame, u32 domain)
{
	if (frame->iommu_calls || frame->bounces)
		tell_gathered(&(struct tell_gathered){ frame, domain });
}
