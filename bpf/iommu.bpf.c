/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The IOMMU core: what a dma-buf's map enters into the device's DMA domain, and everything in
 * private (unmanaged) domains (domain.bpf.c). iommu_map() runs for every network packet and disk request too:
 * that traffic is counted and dropped here.
 */

#define DOMAIN_UNMANAGED 1	/* __IOMMU_DOMAIN_PAGING alone: a driver's own domain */

/* The frame of the dma-buf call this belongs to, if it does. An interrupt that maps for another
 * device on top of this thread is told apart by its domain. */
static inline struct frame *frame_for(struct call *c, struct iommu_domain *domain)
{
	struct frame *frame = frame_of(c);

	return frame && frame->domain_ptr == (u64)domain ? frame : NULL;
}

/*
 * Neither inside a dma-buf call nor in a domain of a driver's own: everybody else's traffic. And
 * what the first of two programs has told.
 */
static inline bool is_not_ours(struct call *c, struct frame *frame, struct iommu_domain *domain)
{
	u64 stamp = c->arg[1] + 1;

	if (!frame) {
		if (LOAD(domain, type) == DOMAIN_UNMANAGED)
			return is_told(c);
		if (role() != SECOND)
			count(ST_DROPPED_IOMMU, 1);
		return true;
	}
	if (role() == FIRST)
		frame->iommu_stamp = stamp;
	if (role() != SECOND)
		return false;
	if (frame->iommu_stamp == stamp) {
		frame->iommu_stamp = 0;
		return true;
	}
	take_over(c);
	return false;
}

SUBPROGRAM(int, send_iommu, struct call *c; struct frame *frame; u64 done; u32 kind; s32 result;)
{
	struct call *c = a->c;
	struct iommu_domain *domain = (void *)c->arg[0];
	u32 id = domain_id(domain, ~0u);
	struct event *e = begin(a->kind);

	if (!e)
		return 0;
	e->result = a->result;
	if (a->frame)
		from_frame(e, a->frame);
	e->domain = id;
	e->iommu.iova = c->arg[1];
	e->iommu.done = a->done;
	e->iommu.calls = 1;
	if (a->kind == EV_IOMMU_MAP) {
		e->iommu.paddr = c->arg[2];
		e->iommu.size = c->arg[3];
		e->iommu.prot = c->arg[4];
	} else {
		e->iommu.size = c->arg[2];
	}
	submit(e);
	return 0;
}

static inline int on_iommu_map_exit(struct call *c)
{
	struct iommu_domain *domain = (void *)c->arg[0];
	struct frame *frame = frame_for(c, domain);
	u64 iova = c->arg[1], size = c->arg[3];
	s32 result = c->ret;
	u32 prot = c->arg[4];

	if (is_not_ours(c, frame, domain))
		return 0;
	if (!frame || result || !is_making(frame)) {
		struct send_iommu map = { c, frame, result ? 0 : size, EV_IOMMU_MAP, result };

		return send_iommu(&map);
	}
	if (!frame->mapping)
		frame->mapping = next_id(ID_MAPPING);
	if (frame->iommu_calls && (frame->iova_end != iova || frame->prot != prot))
		send_gathered(frame, gathered_domain(frame));
	if (!frame->iommu_calls) {
		frame->iova = iova;
		frame->paddr = c->arg[2];
		frame->prot = prot;
	}
	frame->iova_end = iova + size;
	frame->iommu_calls++;
	return 0;
}

static inline int on_iommu_unmap_exit(struct call *c)
{
	struct iommu_domain *domain = (void *)c->arg[0];
	struct frame *frame = frame_for(c, domain);

	if (is_not_ours(c, frame, domain))
		return 0;
	return send_iommu(&(struct send_iommu){ c, frame, c->ret, EV_IOMMU_UNMAP, 0 });
}

/* swiotlb:swiotlb_bounced (dev, dev_addr, size, ...): the device cannot reach the page. */
static inline int on_bounce_entry(struct call *c)
{
	struct frame *frame = frame_of(c);

	if (!frame || frame->device_ptr != c->arg[0] || !is_making(frame))
		return 0;
	if (!frame->mapping)
		frame->mapping = next_id(ID_MAPPING);
	if (!frame->bounces)
		frame->bounce_address = c->arg[1];
	frame->bounces++;
	frame->bounce_bytes += c->arg[2];
	return 0;
}

/*
 * iommu:io_page_fault (dev, iova, flags), raised by report_iommu_fault(): not by VT-d nor SMMUv3.
 * The device may be NULL (arm-smmu v2).
 */
static inline int on_fault_entry(struct call *c)
{
	u32 device = device_id((struct device *)c->arg[0]);
	struct event *e = begin(EV_FAULT);

	if (!e)
		return 0;
	e->device = device;
	e->tgid = 0;		/* an interrupt's: of nobody */
	e->tid = 0;
	e->l2.address = c->arg[1];
	e->l2.offset = (u32)c->arg[2];
	e->l2.provider = 5;	/* TOLD_BY in model/faults.py */
	e->l2.client = c->arg[2] & 1 ? 2 : 1;	/* IOMMU_FAULT_WRITE: a write, else a read */
	submit(e);
	return 0;
}

#define LOG_PARTS 4
#define FOUR(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)

/* A line in the texts of events that follow each other: one record of the ring, as event_pair. */
struct log_line {
	struct event first;
	struct {
		u32 length;
		u32 spare;
		struct event part;
	} more[LOG_PARTS - 1];
};

/*
 * Whether a line may be an IOMMU driver's: by its beginning; AMD-Vi's begins with the driver and the
 * name of the faulting device where that is known. Up to 5.18 the tracepoint is raised as a console
 * prints, and the line begins with the time.
 */
static inline bool is_of_iommu(const char *text)
{
	char head[64] = {};
	u32 word = 0;

	bpf_probe_read_kernel(head, sizeof(head), text);
	if (head[0] == '[')
		return true;
	for (int i = 0; i < sizeof(head); i++) {
		KEEP_LOOP(i);
		if (i < 0 || i >= sizeof(head))
			return false;
		word = word >> 8 | (u32)(u8)head[i] << 24;
		if (word == FOUR('A', 'M', 'D', '-'))
			return true;
		if (i == 3 && (word == FOUR('D', 'M', 'A', 'R') || word == FOUR('a', 'r', 'm', '-')))
			return true;
	}
	return false;
}

static inline void copy_part(struct event *e, const char *text, u64 length, u32 from)
{
	u32 n = EVENT_TEXT_LEN;

	if (length <= from)
		return;
	if (length - from < n)
		n = length - from;
	asm volatile("" : "+r"(n));
	if (n <= EVENT_TEXT_LEN)
		bpf_probe_read_kernel(e->text, n, text + from);
}

/*
 * printk:console (text, length): faults of VT-d, SMMUv3 and AMD-Vi are lines of the log and nothing
 * else. Whoever prints is not whose fault it is: user space reads the line (kernel/faults.py).
 */
static inline int on_kernel_log_entry(struct call *c)
{
	const char *text = (const char *)c->arg[0];
	u64 length = c->arg[1];
	struct log_line *line;

	if (!is_of_iommu(text))
		return 0;
	line = events.ringbuf_reserve(sizeof(*line));
	if (!line) {
		count(ST_EVENTS_LOST, 1);
		return 0;
	}
	start_event(&line->first, EV_LOG);
#pragma unroll
	for (u32 i = 0; i < LOG_PARTS - 1; i++) {
		line->more[i].length = sizeof(struct event);
		line->more[i].spare = 0;
		line->more[i].part = line->first;
		copy_part(&line->more[i].part, text, length, (i + 1) * EVENT_TEXT_LEN);
	}
	copy_part(&line->first, text, length, 0);
	submit(&line->first);
	return 0;
}
