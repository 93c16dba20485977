/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Level-1 mappings: the sg_table that map hands out, its end, and the errno that the DMA API gave
 * inside. An unmap is told at entry, before its addresses can be given to somebody else, and an
 * attachment's first one with its call stack: an importer that refuses a table unmaps it in the
 * function that mapped it.
 */

/* Find out what a table is: the exporter's cached one, seen before, or a new mapping to send. */
static inline void see_table(struct table_facts *facts, struct dma_buf_attachment *at,
			     struct sg_table *table, u32 attachment, u32 mapping)
{
	u64 key = (u64)table;

	read_table(facts, table);
	if (is_cached(at, table)) {
		struct mapping *known = mapping_of(key);

		if (known && known->attachment == attachment) {
			facts->mapping = known->id;
			facts->flags |= EF_CACHED;
			return;
		}
	}
	facts->mapping = mapping ? mapping : next_id(ID_MAPPING);
	keep_mapping(key, facts->mapping, attachment);
	send_table(facts, LOAD(table, sgl), SLOT_MAP);
}

/* An attachment that is older than the trace, seen for the first time. */
static inline struct attachment *old_attachment(struct dma_buf_attachment *at)
{
	struct attachment fresh = { .preexisting = 1 };
	struct device *dev = READ(at, dev);
	struct dma_buf *d = READ(at, dmabuf);
	struct buffer *b = buffer_of(d);
	u64 key = (u64)at;
	struct event *e;

	fresh.device = describe_device(&(struct describe_device){ dev });
	fresh.buffer = b ? b->id : 0;
	fresh.id = next_id(ID_ATTACHMENT);
	keep_attachment(key, &fresh);
	e = begin(EV_ATTACH);
	if (e) {
		e->flags = EF_PREEXISTING;
		e->buffer = fresh.buffer;
		e->attachment = fresh.id;
		e->device = fresh.device;
		describe_buffer(e, d);
		submit(e);
	}
	return attachment_of(key);
}

static inline void frame_attachment(struct frame *frame, struct attachment *a)
{
	if (!a)
		return;
	frame->buffer = a->buffer;
	frame->attachment = a->id;
	frame->device = a->device;
	frame->preexisting = a->preexisting;
}

static inline int on_map_entry(struct call *c)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	u64 key = c->arg[0];
	bool told = false;
	struct frame *frame = push_frame(c, FRAME_MAP, key, &told);

	if (!frame)
		return 0;
	frame_device(frame, LOAD(at, dev));
	frame_attachment(frame, attachment_of(key));
	return 0;
}

/* The attachment of a map: the frame's, when its entry knew it. */
static inline bool find_attachment(struct attachment *found, struct frame *frame,
				   struct dma_buf_attachment *at)
{
	struct attachment *a;

	if (frame && frame->attachment) {
		found->buffer = frame->buffer;
		found->id = frame->attachment;
		found->device = frame->device;
		found->preexisting = frame->preexisting;
		return true;
	}
	a = attachment_of((u64)at);
	if (!a)
		a = old_attachment(at);
	if (!a)
		return false;
	*found = *a;
	return true;
}

static inline void fill_map(struct event *e, struct call *c, struct frame *frame,
			    struct attachment *a, struct table_facts *facts)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct sg_table *table = (void *)c->ret;

	every_stack(e, c);
	e->buffer = a->buffer;
	e->attachment = a->id;
	e->device = a->device;
	if (a->preexisting)
		e->flags |= EF_PREEXISTING;
	e->map.size = LOAD(LOAD(at, dmabuf), size);
	e->map.direction = c->arg[1];
	if (frame) {
		e->duration_ns = e->ts_ns - frame->start_ns;
		e->map.dma_errno = frame->dma_errno;
		e->map.dma_attrs = frame->dma_attrs;
	}
	if (!table)
		e->result = -22;	/* -EINVAL: the core never returns NULL */
	else if (IS_ERR(table))
		e->result = (s64)c->ret;
	fill_table(e, facts);
}

static inline void send_map(struct call *c, struct frame *frame)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct sg_table *table = (void *)c->ret;
	struct table_facts facts = {};
	struct attachment a = {};
	struct event *e, *record;
	struct event_pair *pair;
	u32 domain;

	if (!find_attachment(&a, frame, at))
		return;
	if (frame && !frame->attachment) {	/* older than the trace, and seen just now */
		frame->buffer = a.buffer;
		frame->attachment = a.id;
		frame->device = a.device;
	}
	/* Before the table's loop: the verifier of 6.1 looks back through a loop, but not a call. */
	domain = gathered_domain(frame);
	if (frame && frame->bounces)
		send_gathered(frame, domain);
	if (table && !IS_ERR(table))
		see_table(&facts, at, table, a.id, frame ? frame->mapping : 0);
	if (frame && frame->iommu_calls) {
		pair = begin_pair(EV_IOMMU_MAP, EV_MAP);
		if (!pair)
			return;
		fill_iommu_map(&pair->first, frame, domain);
		record = &pair->first;
		e = &pair->second;
	} else {
		record = e = begin_here(EV_MAP);
		if (!e)
			return;
	}
	KEEP_ONE(e);
	fill_map(e, c, frame, &a, &facts);
	submit(record);
}

static inline int on_map_exit(struct call *c)
{
	struct thread *thread = thread_of(c->tid);
	struct frame *frame = pop_frame(c, thread, FRAME_MAP, c->arg[0]);

	if (frame || role() != SECOND) {
		KEEP_ONE(frame);
		send_map(c, frame);
	}
	leave_thread(c->tid, thread);
	return 0;
}

static inline int on_unmap_entry(struct call *c)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct sg_table *table = (void *)c->arg[1];
	u64 key = c->arg[0];
	bool told = false;
	struct frame *frame = push_frame(c, FRAME_UNMAP, key, &told);
	struct table_facts facts = {};
	struct attachment *a;
	struct mapping *m;
	struct event *e;
	bool cached;

	if (told)
		return 0;
	a = attachment_of(key);
	m = mapping_of((u64)table);
	cached = is_cached(at, table);
	if (m)
		facts.mapping = m->id;
	e = begin_here(EV_UNMAP);
	if (e) {
		if (FACT(STACKS_EVERYWHERE) || (a && !a->unmapped))
			e->stack = kernel_stack(c);
		if (a) {
			a->unmapped = 1;
			e->buffer = a->buffer;
			e->attachment = a->id;
			e->device = a->device;
			if (a->preexisting)
				e->flags |= EF_PREEXISTING;
			if (m && m->attachment != a->id)
				e->flags |= EF_ELSEWHERE;
		} else {
			e->flags |= EF_PREEXISTING;
		}
		if (!m)
			e->flags |= EF_UNKNOWN_TABLE;
		if (cached)
			e->flags |= EF_CACHED;
		e->map.size = LOAD(LOAD(at, dmabuf), size);
		e->map.direction = c->arg[2];
		read_table(&facts, table);
		fill_table(e, &facts);
		submit(e);
	}
	if (!cached && m)
		drop_mapping((u64)table);
	if (!frame)
		return 0;
	frame_device(frame, LOAD(at, dev));
	frame_attachment(frame, a);
	frame->mapping = facts.mapping;
	return 0;
}

static inline int on_unmap_exit(struct call *c)
{
	struct thread *thread = thread_of(c->tid);

	pop_frame(c, thread, FRAME_UNMAP, c->arg[0]);
	leave_thread(c->tid, thread);
	return 0;
}

/* The errno that an exporter may hide, and the attributes it mapped with. */
static inline int on_dma_map_sg_exit(struct call *c)
{
	struct frame *frame = frame_of(c);
	s32 entries = c->ret;

	if (!frame || frame->device_ptr != c->arg[0] || !is_making(frame))
		return 0;
	if (role() == SECOND) {
		if (frame->dma_stamp) {
			frame->dma_stamp = 0;
			return 0;
		}
		take_over(c);
	} else {
		frame->dma_stamp = 1;
	}
	frame->dma_errno = entries < 0 ? entries : 0;
	frame->dma_attrs = c->arg[4];
	return 0;
}
