/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dma-buf core: a buffer's life (export, release), its attachments, the sg_tables handed out,
 * pins, CPU access and invalidation. What begins is told at return, what ends at entry, while the
 * objects can still be read and before an address can be given to somebody else.
 */

BPF_STACK_TRACE(stacks, 4096);

struct chunk {
	struct chunk_header header;
	u8 entries[CHUNK_BYTES];
};
/*
 * Each program that copies tables has a slot of its own: a program never runs twice at once on
 * one CPU, but one may run on top of another.
 */
enum chunk_slot { SLOT_MAP, SLOT_ATTACH, SLOTS };
BPF_TABLE("percpu_array", int, struct chunk, chunk_space, SLOTS);

static inline int kernel_stack(struct call *c)
{
	return stacks.get_stackid(c->ctx, 0);
}

static inline void every_stack(struct event *e, struct call *c)
{
#ifdef STACKS_EVERYWHERE
	e->stack = kernel_stack(c);
#endif
}

static inline int on_export_exit(struct call *c)
{
	struct dma_buf *d = (void *)c->ret;
	struct buffer fresh = {};
	u64 key = c->ret;
	struct event *e;

	if (!IS_ERR(d)) {
		fresh.id = next_id(ID_BUFFER);
		if (buffers.update(&key, &fresh)) {
			count(ST_UNTRACKED, 1);
			fresh.id = 0;
		}
	}
	e = begin(EV_EXPORT);
	if (!e)
		return 0;
	every_stack(e, c);
	e->buffer = fresh.id;
	if (IS_ERR(d)) {
		struct dma_buf_export_info *info = (void *)c->arg[0];
		const char *exporter = READ(info, exp_name);

		e->result = (s64)c->ret;
		e->buf.size = READ(info, size);
		bpf_probe_read_kernel_str(e->buf.exporter, sizeof(e->buf.exporter), exporter);
	} else {
		describe_buffer(e, d);
	}
	submit(e);
	return 0;
}

static inline int on_release_entry(struct call *c)
{
	struct dentry *dentry = (void *)c->arg[0];
	struct dma_buf *d = READ(dentry, d_fsdata);
	struct inode *inode;
	u64 key = (u64)d;
	struct buffer *b;
	struct event *e;

	if (!d)		/* a failed export: dma_buf_export() undoes itself */
		return 0;
	b = buffers.lookup(&key);
	e = begin(EV_RELEASE);
	if (e) {
		every_stack(e, c);
		e->buffer = b ? b->id : 0;
		if (!b || b->preexisting)
			e->flags = EF_PREEXISTING;
		e->buf.size = READ(d, size);
		/* The file is gone by now (d->file dangles); the dentry knows its inode. */
		inode = READ(dentry, d_inode);
		e->buf.ino = inode ? READ(inode, i_ino) : 0;
		bpf_probe_read_kernel_str(e->buf.exporter, sizeof(e->buf.exporter),
					  READ(d, exp_name));
		submit(e);
	}
	buffers.delete(&key);
	return 0;
}

static inline int on_attach_entry(struct call *c)
{
	struct frame *frame = push_frame(FRAME_ATTACH, c->arg[0]);

	if (!frame)
		return 0;
	frame->device_ptr = c->arg[1];
	frame->attachment = next_id(ID_ATTACHMENT);
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

struct table_facts {
	u64 address;
	u32 nents, orig_nents, copied, mapping, flags;
};

/* Copy the scatterlist as it is, chunk after chunk along its chain, never past its last entry. */
static inline void send_table(struct table_facts *facts, struct scatterlist *sgl, int slot)
{
	u32 total = facts->nents > facts->orig_nents ? facts->nents : facts->orig_nents;
	u32 left = total > MAX_SEGMENTS ? MAX_SEGMENTS : total;
	struct chunk *chunk;
	u64 bytes, link;
	int i;
	u32 n;

	if (total > left)
		facts->flags |= EF_CUT;
	chunk = chunk_space.lookup(&slot);
	if (!chunk || !sgl)
		return;
	chunk->header.mapping = facts->mapping;
	chunk->header.total = total;
	chunk->header.first = 0;
	for (i = 0; i < MAX_CHUNKS; i++) {
		if (!left)
			break;
		/* A full block's last slot is the link to the next block. */
		n = left > SG_BLOCK ? SG_BLOCK - 1 : left;
		bytes = (u64)n * sizeof(struct scatterlist);
		/* Keep the bound where the verifier of 6.1 can see it. */
		asm volatile("" : "+r"(bytes));
		bytes &= 2 * CHUNK_BYTES - 1;
		if (bytes > CHUNK_BYTES)
			break;
		if (bpf_probe_read_kernel(chunk->entries, bytes, sgl))
			break;
		chunk->header.count = n;
		if (chunks.ringbuf_output(chunk, sizeof(chunk->header) + bytes,
					  BPF_RB_NO_WAKEUP)) {
			count(ST_SEGMENTS_LOST, left);
			facts->flags |= EF_SEGMENTS_LOST;
			return;
		}
		facts->copied += n;
		chunk->header.first += n;
		left -= n;
		if (!left)
			break;
		link = READ(sgl + (SG_BLOCK - 1), page_link);
		if (!(link & SG_CHAIN))
			break;
		sgl = (void *)(link & ~3UL);
	}
	if (left) {		/* a list that is shorter than it says, or not readable */
		count(ST_SEGMENTS_LOST, left);
		facts->flags |= EF_SEGMENTS_LOST;
	}
}

static inline void read_table(struct table_facts *facts, struct sg_table *table)
{
	struct scatterlist *sgl = READ(table, sgl);

	facts->nents = READ(table, nents);
	facts->orig_nents = READ(table, orig_nents);
	if (sgl)
		facts->address = READ(sgl, dma_address);
}

static inline bool is_cached(struct dma_buf_attachment *at, struct sg_table *table)
{
#ifdef HAVE_DMA_BUF_ATTACHMENT_SGT	/* up to 6.14 */
	return READ(at, sgt) == table;
#else
	return false;
#endif
}

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

static inline void fill_table(struct event *e, struct table_facts *facts)
{
	e->mapping = facts->mapping;
	e->flags |= facts->flags;
	e->map.nents = facts->nents;
	e->map.orig_nents = facts->orig_nents;
	e->map.address = facts->address;
	e->map.copied = facts->copied;
}

static inline bool exporter_pins(struct dma_buf *d)
{
	struct dma_buf_ops *ops = READ(d, ops);

	return READ(ops, pin);
}

static inline bool is_framed(struct device *dev, struct dma_buf *d)
{
	return READ(dev, iommu_group) || exporter_pins(d);
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

	fresh.device = device_id(dev, true);
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

static inline int on_attach_exit(struct call *c)
{
	struct dma_buf *d = (void *)c->arg[0];
	struct device *dev = (void *)c->arg[1];
	struct dma_buf_attach_ops *ops = (void *)c->arg[2];
	struct dma_buf_attachment *at = (void *)c->ret;
	struct frame *frame = pop_frame(FRAME_ATTACH, c->arg[0]);
	struct attachment fresh = {};
	struct buffer *b = buffer_of(d);
	u64 key = c->ret;
	struct event *e;

	if (b) {
		fresh.buffer = b->id;
		send_buffer_name(d, b);
	}
	fresh.device = device_id(dev, true);
	fresh.framed = is_framed(dev, d);
	fresh.id = frame ? frame->attachment : next_id(ID_ATTACHMENT);
	if (frame) {		/* not known at entry, when a dynamic attach maps */
		frame->buffer = fresh.buffer;
		frame->device = fresh.device;
		send_gathered(frame);
	}
	if (!IS_ERR(at) && attachments.update(&key, &fresh))
		count(ST_UNTRACKED, 1);
	e = begin(EV_ATTACH);
	if (!e)
		return 0;
	e->buffer = fresh.buffer;
	e->attachment = fresh.id;
	e->device = fresh.device;
	e->stack = kernel_stack(c);
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

#ifdef HAVE_DMA_BUF_ATTACHMENT_SGT
	/*
	 * Up to 6.14 a dynamic exporter with a static importer, or the reverse, is mapped here,
	 * inside attach; no map call follows before the importer's own, which gets this table.
	 */
	if (!IS_ERR(at)) {
		struct sg_table *table = READ(at, sgt);
		struct table_facts facts = { .flags = EF_IN_ATTACH };

		if (!table)
			return 0;
		read_table(&facts, table);
		facts.mapping = frame && frame->mapping ? frame->mapping : next_id(ID_MAPPING);
		key = (u64)table;
		struct mapping in_attach = { .id = facts.mapping, .attachment = fresh.id };
		if (mappings.update(&key, &in_attach))
			count(ST_UNTRACKED, 1);
		send_table(&facts, READ(table, sgl), SLOT_ATTACH);
		e = begin(EV_MAP);
		if (!e)
			return 0;
		e->buffer = fresh.buffer;
		e->attachment = fresh.id;
		e->device = fresh.device;
		e->map.size = READ(d, size);
		e->map.direction = READ(at, dir);
		fill_table(e, &facts);
		submit(e);
	}
#endif
	return 0;
}

static inline int on_detach_entry(struct call *c)
{
	struct dma_buf *d = (void *)c->arg[0];
	u64 key = c->arg[1];
	struct dma_buf_attachment *at = (void *)key;
	struct attachment *a = attachments.lookup(&key);
	struct frame *frame;
	struct event *e;

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
#ifdef HAVE_DMA_BUF_ATTACHMENT_SGT
		u64 table = (u64)READ(at, sgt);
		if (table) {
			e->flags |= EF_IN_ATTACH;	/* the cached table is unmapped in here */
			mappings.delete(&table);
		}
#endif
		submit(e);
	}
	if (a && a->framed) {
		frame = push_frame(FRAME_DETACH, key);
		if (frame) {
			frame->device_ptr = (u64)READ(at, dev);
			frame->buffer = a->buffer;
			frame->attachment = a->id;
			frame->device = a->device;
		}
	}
	attachments.delete(&key);
	return 0;
}

static inline int on_detach_exit(struct call *c)
{
	pop_frame(FRAME_DETACH, c->arg[1]);
	return 0;
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

static inline int send_attachment_event(struct call *c, int kind, int result)
{
	struct dma_buf_attachment *at = (void *)c->arg[0];
	u64 key = c->arg[0];
	struct attachment *a = attachments.lookup(&key);
	struct event *e = begin(kind);

	if (!e)
		return 0;
	every_stack(e, c);
	e->result = result;
	e->map.size = READ(READ(at, dmabuf), size);
	if (a) {
		e->buffer = a->buffer;
		e->attachment = a->id;
		e->device = a->device;
	}
	if (!a || a->preexisting)
		e->flags = EF_PREEXISTING;
	/*
	 * Without CONFIG_DMABUF_MOVE_NOTIFY (up to 6.14) the core pins for every map, through the
	 * exporter's op, and unpins for every unmap through dma_buf_unpin().
	 */
	if (frame_of())
		e->flags |= EF_INSIDE;
	submit(e);
	return 0;
}

static inline int on_pin_exit(struct call *c)
{
	return send_attachment_event(c, EV_PIN, c->ret);
}

static inline int on_unpin_entry(struct call *c)
{
	return send_attachment_event(c, EV_UNPIN, 0);
}

static inline int send_buffer_event(struct call *c, int kind, int result, u32 direction)
{
	struct dma_buf *d = (void *)c->arg[0];
	struct buffer *b = buffer_of(d);
	struct event *e = begin(kind);

	if (!e)
		return 0;
	every_stack(e, c);
	e->result = result;
	e->map.direction = direction;
	e->map.size = READ(d, size);
	if (b)
		e->buffer = b->id;
	if (!b || b->preexisting)
		e->flags = EF_PREEXISTING;
	submit(e);
	return 0;
}

static inline int on_cpu_begin_exit(struct call *c)
{
	return send_buffer_event(c, EV_CPU_BEGIN, c->ret, c->arg[1]);
}

static inline int on_cpu_end_exit(struct call *c)
{
	return send_buffer_event(c, EV_CPU_END, c->ret, c->arg[1]);
}

static inline int on_invalidate_entry(struct call *c)
{
	return send_buffer_event(c, EV_INVALIDATE, 0, 3);
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
