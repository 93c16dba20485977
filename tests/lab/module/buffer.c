// SPDX-License-Identifier: GPL-2.0
/*
 * What is asked of buffers by ioctl: export one, move an own one, CPU access to any.
 */
#include <linux/dma-resv.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "lab.h"

static struct lab_buf *buf_create(const struct lab_req *q)
{
	struct lab_buf *b = kzalloc(sizeof(*b), GFP_KERNEL);
	int ret;

	if (!b)
		return ERR_PTR(-ENOMEM);
	mutex_init(&b->lock);
	INIT_LIST_HEAD(&b->maps);
	b->size = q->size;
	b->flags = q->flags;
	b->shape = q->shape;
	b->fail_step = q->fail_step;
	b->fail_error = q->fail_error;
	b->fail_left = q->fail_count;
	b->fail_counted = q->fail_count;
	b->delay_ms = q->delay_ms;
	b->run_pages = q->run_pages;
	b->backing = lab_backing_alloc(q->size, q->run_pages, q->flags);
	if (IS_ERR(b->backing)) {
		ret = PTR_ERR(b->backing);
		goto free;
	}
	if (!(q->flags & LAB_F_P2P))
		return b;
	b->provider = lab_dev_get(q->device);
	if (b->provider && b->provider->kind == LAB_KIND_EDU)
		return b;
	ret = -ENODEV;
	if (b->provider)
		lab_dev_put(b->provider);
	lab_backing_put(b->backing);
free:
	kfree(b);
	return ERR_PTR(ret);
}

/* The device stays, even unplugged, until its buffers are released. */
void lab_buf_free(struct lab_buf *b)
{
	if (b->provider)
		lab_dev_put(b->provider);
	lab_backing_put(b->backing);
	kfree(b);
}

static bool export_args_ok(const struct lab_req *q)
{
	if (!q->size || q->size > LAB_MAX_SIZE || q->size & ~PAGE_MASK)
		return false;
	if (q->run_pages && (!is_power_of_2(q->run_pages) || q->run_pages > 512))
		return false;
	if (q->fail_step > LAB_FAIL_PIN || q->shape >= LAB_SHAPE_COUNT || q->delay_ms > 60000)
		return false;
	return !q->fail_step || (q->fail_error > 0 && q->fail_error <= MAX_ERRNO);
}

int lab_export(struct lab_req *q)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	const struct dma_buf_ops *ops = lab_pick_ops(q->flags);
	struct dma_buf *dmabuf;
	struct lab_buf *b;
	struct lab_rec r;
	int ret;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if (!export_args_ok(q))
		return -EINVAL;
	b = buf_create(q);
	if (IS_ERR(b))
		return PTR_ERR(b);
	ret = lab_log_reserve(2);
	if (ret)
		goto free;
	info.ops = ops;
	info.size = q->size;
	info.flags = O_RDWR | O_CLOEXEC;
	info.priv = b;
	lab_log_start(&r, LAB_EV_EXPORT);
	dmabuf = dma_buf_export(&info);
	lab_log_stop(&r, PTR_ERR_OR_ZERO(dmabuf));
	r.size = q->size;
	if (IS_ERR(dmabuf)) {
		ret = PTR_ERR(dmabuf);
		lab_log_commit(&r);
		lab_log_unreserve(1);
		goto free;
	}
	lab_log_buffer(&r, dmabuf);
	b->ino = r.ino;
	lab_log_commit(&r);
	q->ino = b->ino;
	q->fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (q->fd < 0)
		dma_buf_put(dmabuf);
	return q->fd < 0 ? q->fd : 0;
free:
	lab_buf_free(b);
	return ret;
}

static int dynamic_attachments(struct dma_buf *dmabuf)
{
	struct dma_buf_attachment *a;
	int n = 0;

	list_for_each_entry(a, &dmabuf->attachments, node)
		n += !!a->importer_ops;
	return n;
}

static int new_pages(struct lab_buf *b)
{
	struct lab_backing *old, *k = lab_backing_alloc(b->size, b->run_pages, b->flags);

	if (IS_ERR(k))
		return PTR_ERR(k);
	mutex_lock(&b->lock);
	old = b->backing;
	b->backing = k;
	mutex_unlock(&b->lock);
	lab_backing_put(old);
	return 0;
}

/* Live mappings keep the pages they were made with; a new map gets the new ones. */
static int move_locked(struct dma_buf *dmabuf, struct lab_req *q)
{
	bool notify = !(q->flags & LAB_F_NO_NOTIFY);
	int importers = notify ? dynamic_attachments(dmabuf) : 0;
	struct lab_rec r;
	int ret = lab_log_reserve(1 + importers);

	if (ret)
		return ret;
	lab_log_start(&r, notify ? LAB_EV_MOVE_NOTIFY : LAB_EV_MOVE);
	lab_log_buffer(&r, dmabuf);
	if (q->flags & LAB_F_NEW_PAGES)
		ret = new_pages(dmabuf->priv);
	if (!ret && notify)
		lab_move_notify(dmabuf);
	else
		lab_log_unreserve(importers);
	lab_log_stop(&r, ret);
	r.count = ret ? 0 : importers;
	lab_log_commit(&r);
	q->ns = r.ts_ns - r.start_ns;
	return ret;
}

int lab_move(struct lab_req *q)
{
	struct dma_buf *dmabuf = dma_buf_get(q->fd);
	int ret = -EINVAL;

	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	if (lab_is_dynamic(dmabuf)) {
		dma_resv_lock(dmabuf->resv, NULL);
		ret = move_locked(dmabuf, q);
		dma_resv_unlock(dmabuf->resv);
	}
	dma_buf_put(dmabuf);
	return ret;
}

/* Own buffers log in op_sync(), whoever asks; for the others it is done here. */
int lab_cpu_access(struct lab_req *q, bool begin)
{
	struct dma_buf *dmabuf = dma_buf_get(q->fd);
	struct lab_rec r;
	int ret;

	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	ret = lab_is_own(dmabuf) ? 0 : lab_log_reserve(1);
	if (ret)
		goto put;
	lab_log_start(&r, begin ? LAB_EV_CPU_BEGIN : LAB_EV_CPU_END);
	if (begin)
		ret = dma_buf_begin_cpu_access(dmabuf, q->direction);
	else
		ret = dma_buf_end_cpu_access(dmabuf, q->direction);
	lab_log_stop(&r, ret);
	if (!lab_is_own(dmabuf)) {
		lab_log_buffer(&r, dmabuf);
		r.direction = q->direction;
		lab_log_commit(&r);
	}
	q->ns = r.ts_ns - r.start_ns;
put:
	dma_buf_put(dmabuf);
	return ret;
}
