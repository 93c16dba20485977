/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A buffer's life and use: export and release, pins, CPU access, invalidation. What begins is told
 * at return, what ends at entry, while the objects can still be read.
 */

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

/* Releases under way, by dentry: the dma_buf is gone at the return. */
struct release {
	u64 start_ns;
	u64 size;
	u64 ino;
	char exporter[EVENT_EXPORTER_LEN];
	u32 buffer;
	u32 flags;
};
BPF_TABLE("lru_hash", u64, struct release, releases, 1024);

static inline void describe_release(struct event *e, struct release *release)
{
	e->buffer = release->buffer;
	e->flags = release->flags;
	e->buf.size = release->size;
	e->buf.ino = release->ino;
	__builtin_memcpy(e->buf.exporter, release->exporter, sizeof(e->buf.exporter));
}

static inline int on_release_entry(struct call *c)
{
	struct dentry *dentry = (void *)c->arg[0];
	struct dma_buf *d = READ(dentry, d_fsdata);
	u64 key = (u64)d, place = c->arg[0];
	struct release release = {};
	struct inode *inode;
	struct buffer *b;
	struct event *e;

	if (!d)		/* a failed export: dma_buf_export() undoes itself */
		return 0;
	b = buffers.lookup(&key);
	release.buffer = b ? b->id : 0;
	if (!b || b->preexisting)
		release.flags = EF_PREEXISTING;
	release.size = READ(d, size);
	/* The file is gone by now (d->file dangles); the dentry knows its inode. */
	inode = READ(dentry, d_inode);
	release.ino = inode ? READ(inode, i_ino) : 0;
	bpf_probe_read_kernel_str(release.exporter, sizeof(release.exporter), READ(d, exp_name));
	e = begin(EV_RELEASE);
	if (e) {
		every_stack(e, c);
		describe_release(e, &release);
		submit(e);
	}
	buffers.delete(&key);
	release.start_ns = bpf_ktime_get_ns();
	releases.update(&place, &release);
	return 0;
}

static inline int on_release_exit(struct call *c)
{
	u64 place = c->arg[0];
	struct release *release = releases.lookup(&place);
	struct event *e;

	if (!release)
		return 0;
	e = begin(EV_RELEASED);
	if (e) {
		describe_release(e, release);
		e->duration_ns = e->ts_ns - release->start_ns;
		submit(e);
	}
	releases.delete(&place);
	return 0;
}

SUBPROGRAM(int, tell_attachment, struct call *c; u32 kind; s32 result;)
{
	struct call *c = a->c;
	struct dma_buf_attachment *at = (void *)c->arg[0];
	u64 key = c->arg[0];
	struct attachment *known = attachments.lookup(&key);
	struct event *e = begin(a->kind);

	if (!e)
		return 0;
	every_stack(e, c);
	e->result = a->result;
	e->map.size = READ(READ(at, dmabuf), size);
	if (known) {
		e->buffer = known->buffer;
		e->attachment = known->id;
		e->device = known->device;
	}
	if (!known || known->preexisting)
		e->flags = EF_PREEXISTING;
	/*
	 * Without CONFIG_DMABUF_MOVE_NOTIFY (up to 6.14) the core pins for every map, through the
	 * exporter's op, and unpins for every unmap through dma_buf_unpin().
	 */
	if (frame_of(c))
		e->flags |= EF_INSIDE;
	submit(e);
	return 0;
}

static inline int on_pin_exit(struct call *c)
{
	return tell_attachment(&(struct tell_attachment){ c, EV_PIN, c->ret });
}

static inline int on_unpin_entry(struct call *c)
{
	return tell_attachment(&(struct tell_attachment){ c, EV_UNPIN, 0 });
}

SUBPROGRAM(int, tell_buffer, struct call *c; u32 kind; s32 result; u32 direction;)
{
	struct call *c = a->c;
	struct dma_buf *d = (void *)c->arg[0];
	struct buffer *b = buffer_of(d);
	struct event *e = begin(a->kind);

	if (!e)
		return 0;
	every_stack(e, c);
	e->result = a->result;
	e->map.direction = a->direction;
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
	return tell_buffer(&(struct tell_buffer){ c, EV_CPU_BEGIN, c->ret, c->arg[1] });
}

/*
 * gcc puts dma_buf_end_cpu_access() into dma_buf_ioctl() (seen on x86-64, 6.1 to 7.2), where
 * DMA_BUF_IOCTL_SYNC then ends an access unseen. So the ioctl is watched too: a thread stands in
 * this map from its entry until the end was seen, or until its return tells it.
 */
BPF_TABLE("lru_hash", u32, u32, syncs, 4096);

static inline int on_cpu_end_exit(struct call *c)
{
	u32 tid = bpf_get_current_pid_tgid();

	syncs.delete(&tid);
	return tell_buffer(&(struct tell_buffer){ c, EV_CPU_END, c->ret, c->arg[1] });
}

#define DMA_BUF_IOCTL_SYNC 0x40086200	/* _IOW('b', 0, struct dma_buf_sync) */
#define DMA_BUF_SYNC_READ 1
#define DMA_BUF_SYNC_WRITE 2
#define DMA_BUF_SYNC_END 4

/* dma_buf_ioctl(file, cmd, arg) */
static inline int on_cpu_sync_entry(struct call *c)
{
	u32 tid = bpf_get_current_pid_tgid(), one = 1;

	if ((u32)c->arg[1] == DMA_BUF_IOCTL_SYNC)
		syncs.update(&tid, &one);
	return 0;
}

static inline int on_cpu_sync_exit(struct call *c)
{
	struct file *file = (void *)c->arg[0];
	u32 tid = bpf_get_current_pid_tgid(), direction = 0;
	u64 flags = 0;

	if ((u32)c->arg[1] != DMA_BUF_IOCTL_SYNC || !syncs.lookup(&tid))
		return 0;
	syncs.delete(&tid);
	/* The kernel has just read it: the page is there. -EINVAL: refused, nothing was ended. */
	if (bpf_probe_read_user(&flags, sizeof(flags), (void *)c->arg[2]) ||
	    !(flags & DMA_BUF_SYNC_END) || (s32)c->ret == -22)
		return 0;
	if (!(flags & DMA_BUF_SYNC_WRITE))
		direction = 2;
	else if (!(flags & DMA_BUF_SYNC_READ))
		direction = 1;
	c->arg[0] = (u64)READ(file, private_data);
	return tell_buffer(&(struct tell_buffer){ c, EV_CPU_END, c->ret, direction });
}

static inline int on_invalidate_entry(struct call *c)
{
	return tell_buffer(&(struct tell_buffer){ c, EV_INVALIDATE, 0, 3 });
}
