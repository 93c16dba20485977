/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Level-1 mappings: the sg_table that map hands out, its end, and the errno that the DMA API gave
 * inside. An unmap is told at entry, before its addresses can be given to somebody else.
 */

/* Find out what a table is: the exporter's cached one, seen before, or a new mapping to send. */
static inline void see_table(struct table_facts *facts, struct dma_buf_attachment *at,
			     struct sg_table *table, u32 attachment, u32 mapping)
{
	u64 key = (u64)table;
	struct mapping *known = mappings.lookup(&key);
	struct mapping fresh = { .attachment = attachment };

	read_table(facts, table);
	if (known && known->attachment == attachment && is_cached(at, table)) {
		facts->mapping = known->id;
		facts->flags |= EF_CACHED;
		return;
	}
	fresh.id = mapping ? mapping : next_id(ID_MAPPING);
	facts->mapping = fresh.id;
	if (mappings.update(&key, &fresh))
		count(ST_UNTRACKED, 1);
	send_table(facts, READ(table, sgl), SLOT_MAP);
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

	fresh.device = describe_device(dev);
	fresh.framed = is_framed(dev, d);
	fresh.buffer = b ? b->id : 0;
	fresh.id = next_id(ID_ATTACHMENT);
	if (attachments.update(&key, &fresh)) {
		count(ST_UNTRACKED, 1);
		return NULL;
	}
	e = begin(EV_ATTACH);
	if (e) {
		e->flags = EF_PREEXISTING;
		e->buffer = fresh.buffer;
		e->attachment = fresh.id;
		e->device = fresh.device;
		describe_buffer(e, d);
		submit(e);
	}
	return attachments.lookup(&key);
}

static inline int on_map_entry(struct call *c)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct frame *frame = push_frame(FRAME_MAP, c->arg[0]);
	u64 key = c->arg[0];
	struct attachment *a;

	if (!frame)
		return 0;
	frame->device_ptr = (u64)READ(at, dev);
	a = attachments.lookup(&key);
	if (a) {
		frame->buffer = a->buffer;
		frame->attachment = a->id;
		frame->device = a->device;
	}
	return 0;
}

static inline int on_map_exit(struct call *c)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct sg_table *table = (void *)c->ret;
	struct frame *frame = pop_frame(FRAME_MAP, c->arg[0]);
	struct table_facts facts = {};
	u64 key = c->arg[0];
	struct attachment *a = attachments.lookup(&key);
	struct event *e;

	if (!a) {
		a = old_attachment(at);
		if (!a)
			return 0;
	}
	send_gathered(frame);
	if (table && !IS_ERR(table))
		see_table(&facts, at, table, a->id, frame ? frame->mapping : 0);
	e = begin(EV_MAP);
	if (!e)
		return 0;
	every_stack(e, c);
	e->buffer = a->buffer;
	e->attachment = a->id;
	e->device = a->device;
	if (a->preexisting)
		e->flags |= EF_PREEXISTING;
	e->map.size = READ(READ(at, dmabuf), size);
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
	fill_table(e, &facts);
	submit(e);
	return 0;
}

static inline int on_unmap_entry(struct call *c)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	struct sg_table *table = (void *)c->arg[1];
	u64 attachment_key = c->arg[0], table_key = c->arg[1];
	struct attachment *a = attachments.lookup(&attachment_key);
	struct mapping *m = mappings.lookup(&table_key);
	bool cached = is_cached(at, table);
	struct table_facts facts = {};
	struct frame *frame;
	struct event *e;

	if (m)
		facts.mapping = m->id;
	e = begin(EV_UNMAP);
	if (e) {
		every_stack(e, c);
		if (a) {
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
		e->map.size = READ(READ(at, dmabuf), size);
		e->map.direction = c->arg[2];
		read_table(&facts, table);
		fill_table(e, &facts);
		submit(e);
	}
	if (!cached && m)
		mappings.delete(&table_key);
	if (!cached && a && a->framed) {
		frame = push_frame(FRAME_UNMAP, attachment_key);
		if (frame) {
			frame->device_ptr = (u64)READ(at, dev);
			frame->buffer = a->buffer;
			frame->attachment = a->id;
			frame->device = a->device;
			frame->mapping = facts.mapping;
		}
	}
	return 0;
}

static inline int on_unmap_exit(struct call *c)
{
	pop_frame(FRAME_UNMAP, c->arg[0]);
	return 0;
}

/* The errno that an exporter may hide, and the attributes it mapped with. */
static inline int on_dma_map_sg_exit(struct call *c)
{
	struct frame *frame = frame_of();
	s32 entries = c->ret;

	if (!frame || frame->device_ptr != c->arg[0])
		return 0;
	if (frame->kind != FRAME_MAP && frame->kind != FRAME_ATTACH)
		return 0;
	frame->dma_errno = entries < 0 ? entries : 0;
	frame->dma_attrs = c->arg[4];
	return 0;
}
