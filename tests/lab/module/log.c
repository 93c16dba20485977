// SPDX-License-Identifier: GPL-2.0
/*
 * The log: what the driver did, in the order in which the calls returned. Tests hold the
 * tool's capture against it, so it never loses a line: an operation reserves the lines it
 * will need, those of its undoing included, before it calls anything, and is refused with
 * -ENOSPC when there is no room.
 */
#include <linux/atomic.h>
#include <linux/ctype.h>
#include <linux/debugfs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>

#include "lab.h"

static unsigned int log_capacity = 262144;
module_param(log_capacity, uint, 0444);
MODULE_PARM_DESC(log_capacity, "lines the log holds");

static const char * const event_names[LAB_EV_COUNT] = {
	[LAB_EV_EXPORT] = "export",
	[LAB_EV_RELEASE] = "release",
	[LAB_EV_MOVE] = "move",
	[LAB_EV_MOVE_NOTIFY] = "move-notify",
	[LAB_EV_INVALIDATED] = "invalidated",
	[LAB_EV_CPU_BEGIN] = "cpu-begin",
	[LAB_EV_CPU_END] = "cpu-end",
	[LAB_EV_ATTACH] = "attach",
	[LAB_EV_DETACH] = "detach",
	[LAB_EV_PIN] = "pin",
	[LAB_EV_UNPIN] = "unpin",
	[LAB_EV_MAP] = "map",
	[LAB_EV_UNMAP] = "unmap",
	[LAB_EV_REJECT] = "reject",
	[LAB_EV_MAP_LOOP] = "map-loop",
	[LAB_EV_CB_ATTACH] = "cb-attach",
	[LAB_EV_CB_DETACH] = "cb-detach",
	[LAB_EV_CB_PIN] = "cb-pin",
	[LAB_EV_CB_UNPIN] = "cb-unpin",
	[LAB_EV_CB_MAP] = "cb-map",
	[LAB_EV_CB_UNMAP] = "cb-unmap",
	[LAB_EV_CONTEXT_CREATE] = "context-create",
	[LAB_EV_CONTEXT_FREE] = "context-free",
	[LAB_EV_CONTEXT_ATTACH] = "context-attach",
	[LAB_EV_CONTEXT_DETACH] = "context-detach",
	[LAB_EV_L2_MAP] = "level2-map",
	[LAB_EV_L2_UNMAP] = "level2-unmap",
	[LAB_EV_EDU_DMA] = "edu-dma",
	[LAB_EV_MARK] = "mark",
};

static const char * const kind_names[] = { "none", "edu", "platform", "domain", "gpuvm" };
static const char * const dir_names[] = { "bidirectional", "to-device", "from-device", "none" };

static struct dentry *log_dir;
static struct lab_rec *log_lines;
static unsigned int log_used;
static unsigned int log_reserved;
static u64 log_seq;
static u64 log_dropped;
static DEFINE_SPINLOCK(log_lock);

int lab_log_reserve(unsigned int n)
{
	int ret = 0;

	spin_lock(&log_lock);
	if (log_used + log_reserved + n > log_capacity)
		ret = -ENOSPC;
	else
		log_reserved += n;
	spin_unlock(&log_lock);
	return ret;
}

void lab_log_unreserve(unsigned int n)
{
	spin_lock(&log_lock);
	log_reserved -= n;
	spin_unlock(&log_lock);
}

void lab_log_start(struct lab_rec *r, enum lab_event event)
{
	memset(r, 0, sizeof(*r));
	r->event = event;
	r->direction = -1;
	r->source = -1;
	r->implicit = lab_implicit();
	r->tgid = current->tgid;
	r->tid = current->pid;
	get_task_comm(r->comm, current);
	r->start_ns = ktime_get_ns();
}

void lab_log_buffer(struct lab_rec *r, struct dma_buf *dmabuf)
{
	r->ino = file_inode(dmabuf->file)->i_ino;
	r->size = dmabuf->size;
	strscpy(r->exporter, dmabuf->exp_name ? dmabuf->exp_name : "", sizeof(r->exporter));
}

void lab_log_table(struct lab_rec *r, const struct sg_table *sgt)
{
	struct scatterlist *sg;
	unsigned int i;

	r->nents = sgt->nents;
	r->orig_nents = sgt->orig_nents;
	for_each_sg(sgt->sgl, sg, sgt->nents, i) {
		if (!i) {
			r->dma_addr = sg_dma_address(sg);
			r->dma_len = sg_dma_len(sg);
		}
		r->dma_sum += sg_dma_len(sg);
	}
}

/* The moment of return, taken before anything else is looked up. */
void lab_log_stop(struct lab_rec *r, int result)
{
	r->ts_ns = ktime_get_ns();
	r->result = result;
}

static void log_append(struct lab_rec *r)
{
	r->seq = log_seq++;
	log_lines[log_used++] = *r;
}

/* Uses up one reserved line. */
void lab_log_commit(struct lab_rec *r)
{
	spin_lock(&log_lock);
	log_reserved--;
	log_append(r);
	spin_unlock(&log_lock);
}

/* For what nobody could reserve for; a drop is counted and shown. */
void lab_log_try(struct lab_rec *r)
{
	spin_lock(&log_lock);
	if (log_used + log_reserved < log_capacity)
		log_append(r);
	else
		log_dropped++;
	spin_unlock(&log_lock);
}

void lab_log_clear(void)
{
	spin_lock(&log_lock);
	log_used = 0;
	log_dropped = 0;
	spin_unlock(&log_lock);
}

u64 lab_log_capacity(void)
{
	return log_capacity;
}

static void *log_seq_start(struct seq_file *m, loff_t *pos)
{
	return *pos < READ_ONCE(log_used) ? pos : NULL;
}

static void *log_seq_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return log_seq_start(m, pos);
}

static void log_seq_stop(struct seq_file *m, void *v)
{
}

static void put_string(struct seq_file *m, const char *key, const char *s)
{
	seq_printf(m, ",\"%s\":\"", key);
	for (; *s; s++) {
		unsigned char c = *s;

		if (c == '"' || c == '\\' || !isascii(c) || !isprint(c))
			seq_printf(m, "\\u%04x", c);
		else
			seq_putc(m, c);
	}
	seq_putc(m, '"');
}

static void put_level2(struct seq_file *m, const struct lab_rec *r)
{
	seq_printf(m, ",\"context\":%u,\"kind\":\"%s\",\"va\":%llu,\"offset\":%llu,\"bytes\":%llu",
		   r->context, kind_names[r->kind], r->va, r->offset, r->bytes);
	if (r->source >= 0)
		seq_printf(m, ",\"source\":\"%s\"",
			   r->source == LAB_SOURCE_PAGES ? "pages" : "dma-address");
}

static int log_seq_show(struct seq_file *m, void *v)
{
	unsigned int i = *(loff_t *)v;
	struct lab_rec r;
	bool there;

	spin_lock(&log_lock);
	there = i < log_used;
	if (there)
		r = log_lines[i];
	spin_unlock(&log_lock);
	if (!there)
		return SEQ_SKIP;
	seq_printf(m, "{\"seq\":%llu,\"op\":\"%s\",\"result\":%d,\"start_ns\":%llu,\"ts_ns\":%llu",
		   r.seq, event_names[r.event], r.result, r.start_ns, r.ts_ns);
	seq_printf(m, ",\"ino\":%llu,\"size\":%llu", r.ino, r.size);
	put_string(m, "exporter", r.exporter);
	put_string(m, "device", r.device);
	seq_printf(m, ",\"direction\":\"%s\"", dir_names[r.direction < 0 ? 3 : r.direction]);
	seq_printf(m, ",\"nents\":%u,\"orig_nents\":%u,\"dma_addr\":%llu,\"dma_len\":%llu,\"dma_sum\":%llu",
		   r.nents, r.orig_nents, r.dma_addr, r.dma_len, r.dma_sum);
	seq_printf(m, ",\"attachment\":%u,\"map\":%u", r.attachment, r.map);
	if (r.context || r.event == LAB_EV_EDU_DMA)
		put_level2(m, &r);
	seq_printf(m, ",\"count\":%u,\"implicit\":%s,\"tgid\":%d,\"tid\":%d", r.count,
		   r.implicit ? "true" : "false", r.tgid, r.tid);
	put_string(m, "comm", r.comm);
	seq_puts(m, "}\n");
	return 0;
}

static const struct seq_operations log_seq_sops = {
	.start = log_seq_start,
	.next = log_seq_next,
	.stop = log_seq_stop,
	.show = log_seq_show,
};

DEFINE_SEQ_ATTRIBUTE(log_seq);

static int state_show(struct seq_file *m, void *v)
{
	spin_lock(&log_lock);
	seq_printf(m, "{\"used\":%u,\"reserved\":%u,\"capacity\":%u,\"dropped\":%llu,\"seq\":%llu}\n",
		   log_used, log_reserved, log_capacity, log_dropped, log_seq);
	spin_unlock(&log_lock);
	return 0;
}

DEFINE_SHOW_ATTRIBUTE(state);

int lab_log_init(void)
{
	log_capacity = clamp(log_capacity, 1024u, 1u << 22);
	log_lines = vzalloc(array_size(log_capacity, sizeof(*log_lines)));
	if (!log_lines)
		return -ENOMEM;
	log_dir = debugfs_create_dir("dmabuf_lab", NULL);
	debugfs_create_file("log", 0400, log_dir, NULL, &log_seq_fops);
	debugfs_create_file("state", 0400, log_dir, NULL, &state_fops);
	lab_table_init(log_dir);
	lab_witness_init(log_dir);
	return 0;
}

void lab_log_exit(void)
{
	lab_witness_exit();
	debugfs_remove_recursive(log_dir);
	vfree(log_lines);
}
