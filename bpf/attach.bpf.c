/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attachments: attach with the limits of the device and the importer's call stack; detach, which
 * up to 6.14 ends the exporter's cached mapping; removal of devices.
 */

static inline int on_attach_entry(struct call *c)
{
	bool told = false;
	struct frame *frame = push_frame(c, FRAME_ATTACH, c->arg[0], &told);

	if (!frame)
		return 0;
	frame_device(frame, (void *)c->arg[1]);
	frame->attachment = next_id(ID_ATTACHMENT);
	/* Not at the return, from where an fprobe's stack may end early (docs/decisions.md). */
	frame->caller = kernel_stack(c);
	return 0;
}

static inline void send_buffer_name(struct dma_buf *d, struct buffer *b)
{
	const char *name = READ(d, name);

	if (!name || b->name == (u64)name)
		return;
	b->name = (u64)name;
	send_name(EV_NAME_BUFFER, b->id, 0, name);
}

static inline void send_attach(struct call *c, struct frame *frame)
{
	struct dma_buf *d = (void *)c->arg[0];
	struct device *dev = (void *)c->arg[1];
	struct dma_buf_attach_ops *ops = (void *)c->arg[2];
	struct dma_buf_attachment *at = (void *)c->ret;
	struct attachment fresh = {};
	struct buffer *b = buffer_of(d);
	struct event *e;

	if (b) {
		fresh.buffer = b->id;
		send_buffer_name(d, b);
	}
	fresh.device = describe_device(&(struct describe_device){ dev });
	fresh.id = frame ? frame->attachment : next_id(ID_ATTACHMENT);
	if (frame) {		/* not known at entry, when a dynamic attach maps */
		frame->buffer = fresh.buffer;
		frame->device = fresh.device;
		send_gathered(frame, gathered_domain(frame));
	}
	if (!IS_ERR(at))
		keep_attachment(c->ret, &fresh);
	e = begin(EV_ATTACH);
	if (!e)
		return;
	e->buffer = fresh.buffer;
	e->attachment = fresh.id;
	e->device = fresh.device;
	e->stack = frame ? frame->caller : kernel_stack(c);
	if (frame)
		e->duration_ns = e->ts_ns - frame->start_ns;
	if (ops) {
		e->flags |= EF_DYNAMIC;
		if (READ(ops, allow_peer2peer))
			e->flags |= EF_ALLOW_PEER2PEER;
	}
	if (exporter_pins(d))
		e->flags |= EF_EXPORTER_PINS;
	if (IS_ERR(at))
		e->result = (s64)c->ret;
	else if (READ(at, peer2peer))
		e->flags |= EF_PEER2PEER;
	describe_buffer(e, d);
	submit(e);

	/*
	 * Up to 6.14 a dynamic exporter with a static importer, or the reverse, is mapped here,
	 * inside attach; no map call follows before the importer's own, which gets this table.
	 */
	if (HAVE(dma_buf_attachment, sgt) && !IS_ERR(at)) {
		struct sg_table *table = LOAD(at, sgt);
		struct table_facts facts = { .flags = EF_IN_ATTACH };

		if (!table)
			return;
		read_table(&facts, table);
		facts.mapping = frame && frame->mapping ? frame->mapping : next_id(ID_MAPPING);
		keep_mapping((u64)table, facts.mapping, fresh.id);
		send_table(&facts, READ(table, sgl), SLOT_ATTACH);
		e = begin_here(EV_MAP);
		if (!e)
			return;
		e->buffer = fresh.buffer;
		e->attachment = fresh.id;
		e->device = fresh.device;
		e->map.size = READ(d, size);
		e->map.direction = READ(at, dir);
		fill_table(e, &facts);
		submit(e);
	}
}

static inline int on_attach_exit(struct call *c)
{
	struct thread *thread = thread_of(c->tid);
	struct frame *frame = pop_frame(c, thread, FRAME_ATTACH, c->arg[0]);

	if (frame || role() != SECOND) {
		KEEP_ONE(frame);
		send_attach(c, frame);
	}
	leave_thread(c->tid, thread);
	return 0;
}

static inline int on_detach_entry(struct call *c)
{
	struct dma_buf *d = (void *)c->arg[0];
	u64 key = c->arg[1], table;
	struct dma_buf_attachment *at = (void *)key;
	bool told = false;
	struct frame *frame = push_frame(c, FRAME_DETACH, key, &told);
	struct attachment *a;
	struct event *e;

	if (told)
		return 0;
	a = attachment_of(key);
	e = begin(EV_DETACH);
	if (e) {
		every_stack(e, c);
		e->buf.size = READ(d, size);
		e->buf.ino = inode_number(d);
		if (a) {
			e->buffer = a->buffer;
			e->attachment = a->id;
			e->device = a->device;
		}
		if (!a || a->preexisting)
			e->flags |= EF_PREEXISTING;
		table = HAVE(dma_buf_attachment, sgt) ? (u64)READ(at, sgt) : 0;
		if (table) {
			e->flags |= EF_IN_ATTACH;	/* the cached table is unmapped in here */
			drop_mapping(table);
		}
		submit(e);
	}
	if (frame)
		frame_device(frame, LOAD(at, dev));
	if (frame && a) {
		frame->buffer = a->buffer;
		frame->attachment = a->id;
		frame->device = a->device;
	}
	drop_attachment(key);
	return 0;
}

static inline int on_detach_exit(struct call *c)
{
	struct thread *thread = thread_of(c->tid);

	pop_frame(c, thread, FRAME_DETACH, c->arg[1]);
	leave_thread(c->tid, thread);
	return 0;
}

static inline int on_device_gone_entry(struct call *c)
{
	u64 key = c->arg[0];
	u32 *id = devices.lookup(&key);
	struct event *e;

	if (!id)
		return 0;
	e = begin(EV_DEVICE_GONE);
	if (e) {
		e->device = *id;
		submit(e);
	}
	devices.delete(&key);
	return 0;
}
