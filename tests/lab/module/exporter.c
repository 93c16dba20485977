// SPDX-License-Identifier: GPL-2.0
/*
 * The driver's own buffers: pages in physical runs of a chosen length, exported with or
 * without pin (dynamic) and table caching, failing or slow where told to.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "lab.h"

static bool log_callbacks;
module_param(log_callbacks, bool, 0644);
MODULE_PARM_DESC(log_callbacks, "also log the callbacks of own buffers, as cb-* lines");

static const struct dma_buf_ops lab_static_ops;
static const struct dma_buf_ops lab_dynamic_ops;
#if LAB_HAS_CACHE_SGT
static const struct dma_buf_ops lab_cached_ops;
#endif

/* ---- pages ---- */

static void backing_free(struct kref *ref)
{
	struct lab_backing *k = container_of(ref, struct lab_backing, ref);
	unsigned int i;

	for (i = 0; i < k->npages; i++)
		__free_page(k->pages[i]);
	kvfree(k);
}

static void backing_put(struct lab_backing *k)
{
	kref_put(&k->ref, backing_free);
}

/*
 * One run of n pages, physically contiguous. With a gap, twice as much is taken and the second
 * half given back, so that no two runs ever lie next to each other.
 */
static int backing_run(struct lab_backing *k, unsigned int n, bool gap, gfp_t gfp)
{
	unsigned int order = order_base_2(n) + (gap ? 1 : 0);
	struct page *page;
	unsigned int i;

	if (order > 10)
		return -E2BIG;
	page = alloc_pages(gfp | (order ? __GFP_NOWARN : 0), order);
	if (!page)
		return -ENOMEM;
	split_page(page, order);
	for (i = 0; i < 1u << order; i++) {
		if (i < n)
			k->pages[k->npages++] = page + i;
		else
			__free_page(page + i);
	}
	return 0;
}

static struct lab_backing *backing_alloc(u64 size, u32 run_pages, u32 flags)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | (flags & LAB_F_DMA32 ? GFP_DMA32 : 0);
	unsigned int npages = size >> PAGE_SHIFT;
	struct lab_backing *k;
	int ret = 0;

	k = kvzalloc(struct_size(k, pages, npages), GFP_KERNEL);
	if (!k)
		return ERR_PTR(-ENOMEM);
	kref_init(&k->ref);
	k->run_pages = run_pages ? run_pages : npages;
	while (!ret && k->npages < npages) {
		unsigned int n = min(k->run_pages, npages - k->npages);

		ret = backing_run(k, n, run_pages, gfp);
		k->nruns++;
	}
	if (ret) {
		backing_put(k);
		return ERR_PTR(ret);
	}
	return k;
}

/* ---- the callbacks' own lines ---- */

static void cb_log(enum lab_event event, struct dma_buf_attachment *attach,
		   const struct sg_table *sgt, int dir, int result, u64 start)
{
	struct lab_rec r;

	if (!READ_ONCE(log_callbacks))
		return;
	lab_log_start(&r, event);
	r.start_ns = start;
	lab_log_buffer(&r, attach->dmabuf);
	strscpy(r.device, dev_name(attach->dev), sizeof(r.device));
	r.direction = dir;
	if (sgt)
		lab_log_table(&r, sgt);
	lab_log_stop(&r, result);
	lab_log_try(&r);
}

/* ---- failures ---- */

/* 0, or the errno this step has to fail with now. */
static int fail_now(struct lab_buf *b, u32 step)
{
	int ret = 0;

	mutex_lock(&b->lock);
	if (b->fail_step == step && (!b->fail_counted || b->fail_left)) {
		if (b->fail_counted)
			b->fail_left--;
		ret = -(int)b->fail_error;
	}
	mutex_unlock(&b->lock);
	return ret;
}

/* ---- dma_buf_ops ---- */

static int op_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct lab_buf *b = dmabuf->priv;
	u64 start = ktime_get_ns();
	int ret;

	if (b->delay_ms && b->flags & LAB_F_DELAY_ATTACH)
		msleep(b->delay_ms);
	ret = fail_now(b, LAB_FAIL_ATTACH);
	cb_log(LAB_EV_CB_ATTACH, attach, NULL, -1, ret, start);
	return ret;
}

static int op_pin(struct dma_buf_attachment *attach)
{
	u64 start = ktime_get_ns();
	int ret = fail_now(attach->dmabuf->priv, LAB_FAIL_PIN);

	cb_log(LAB_EV_CB_PIN, attach, NULL, -1, ret, start);
	return ret;
}

static void op_unpin(struct dma_buf_attachment *attach)
{
	cb_log(LAB_EV_CB_UNPIN, attach, NULL, -1, 0, ktime_get_ns());
}

static int fill_table(struct lab_xmap *x)
{
	struct lab_backing *k = x->backing;
	struct scatterlist *sg;
	unsigned int i, at = 0;
	int ret;

	ret = sg_alloc_table(&x->real, k->nruns, GFP_KERNEL);
	if (ret)
		return ret;
	for_each_sg(x->real.sgl, sg, k->nruns, i) {
		unsigned int n = min(k->run_pages, k->npages - at);

		sg_set_page(sg, k->pages[at], n << PAGE_SHIFT, 0);
		at += n;
	}
	return 0;
}

static void xmap_free(struct lab_xmap *x)
{
	lab_unforge(x);
	if (x->mapped)
		dma_unmap_sgtable(x->attach->dev, &x->real, x->dir, x->attrs);
	sg_free_table(&x->real);
	backing_put(x->backing);
	kfree(x);
}

static int xmap_fill(struct lab_xmap *x, struct lab_buf *b)
{
	struct device *dev = x->attach->dev;
	int ret = fill_table(x);

	if (ret)
		return ret;
	if (b->flags & LAB_F_SKIP_SYNC)
		x->attrs |= DMA_ATTR_SKIP_CPU_SYNC;
	if (b->shape != LAB_SHAPE_UNTRANSLATED) {
		ret = dma_map_sgtable(dev, &x->real, x->dir, x->attrs);
		if (ret)
			return ret;
		x->mapped = true;
	}
	return lab_forge(x, b->shape, dev);
}

static struct lab_xmap *xmap_create(struct lab_buf *b, struct dma_buf_attachment *attach,
				    enum dma_data_direction dir)
{
	struct lab_xmap *x = kzalloc(sizeof(*x), GFP_KERNEL);
	int ret;

	if (!x)
		return ERR_PTR(-ENOMEM);
	x->attach = attach;
	x->dir = dir;
	mutex_lock(&b->lock);
	x->backing = b->backing;
	kref_get(&x->backing->ref);
	mutex_unlock(&b->lock);
	ret = xmap_fill(x, b);
	if (ret) {
		xmap_free(x);
		return ERR_PTR(ret);
	}
	mutex_lock(&b->lock);
	list_add(&x->node, &b->maps);
	mutex_unlock(&b->lock);
	return x;
}

static struct sg_table *op_map(struct dma_buf_attachment *attach, enum dma_data_direction dir)
{
	struct lab_buf *b = attach->dmabuf->priv;
	u64 start = ktime_get_ns();
	struct lab_xmap *x;
	int ret;

	if (b->delay_ms && !(b->flags & (LAB_F_DELAY_ATTACH | LAB_F_DELAY_RELEASE)))
		msleep(b->delay_ms);
	ret = fail_now(b, LAB_FAIL_MAP);
	x = ret ? ERR_PTR(ret) : xmap_create(b, attach, dir);
	if (IS_ERR(x)) {
		cb_log(LAB_EV_CB_MAP, attach, NULL, dir, PTR_ERR(x), start);
		return ret && b->flags & LAB_F_FAIL_NULL ? NULL : ERR_CAST(x);
	}
	cb_log(LAB_EV_CB_MAP, attach, &x->out, dir, 0, start);
	return &x->out;
}

static void op_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
		     enum dma_data_direction dir)
{
	struct lab_xmap *x = container_of(sgt, struct lab_xmap, out);
	struct lab_buf *b = attach->dmabuf->priv;
	u64 start = ktime_get_ns();

	cb_log(LAB_EV_CB_UNMAP, attach, sgt, dir, 0, start);
	mutex_lock(&b->lock);
	list_del(&x->node);
	mutex_unlock(&b->lock);
	xmap_free(x);
}

/* An importer that detached with mappings left them here. */
static void op_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct lab_buf *b = dmabuf->priv;
	struct lab_xmap *x, *next;
	LIST_HEAD(left);

	cb_log(LAB_EV_CB_DETACH, attach, NULL, -1, 0, ktime_get_ns());
	mutex_lock(&b->lock);
	list_for_each_entry_safe(x, next, &b->maps, node)
		if (x->attach == attach)
			list_move(&x->node, &left);
	mutex_unlock(&b->lock);
	list_for_each_entry_safe(x, next, &left, node)
		xmap_free(x);
}

static void op_release(struct dma_buf *dmabuf)
{
	struct lab_buf *b = dmabuf->priv;
	struct lab_rec r;

	lab_log_start(&r, LAB_EV_RELEASE);
	if (b->delay_ms && b->flags & LAB_F_DELAY_RELEASE)
		msleep(b->delay_ms);
	r.ino = b->ino;
	r.size = b->size;
	strscpy(r.exporter, dmabuf->exp_name, sizeof(r.exporter));
	backing_put(b->backing);
	kfree(b);
	lab_log_stop(&r, 0);
	lab_log_commit(&r);
}

static int op_sync(struct dma_buf *dmabuf, enum dma_data_direction dir, bool begin)
{
	struct lab_buf *b = dmabuf->priv;
	struct lab_xmap *x;
	struct lab_rec r;
	int ret = lab_log_reserve(1);

	if (ret)
		return ret;
	lab_log_start(&r, begin ? LAB_EV_CPU_BEGIN : LAB_EV_CPU_END);
	lab_log_buffer(&r, dmabuf);
	r.direction = dir;
	mutex_lock(&b->lock);
	list_for_each_entry(x, &b->maps, node) {
		if (!x->mapped)
			continue;
		if (begin)
			dma_sync_sgtable_for_cpu(x->attach->dev, &x->real, dir);
		else
			dma_sync_sgtable_for_device(x->attach->dev, &x->real, dir);
	}
	mutex_unlock(&b->lock);
	lab_log_stop(&r, 0);
	lab_log_commit(&r);
	return 0;
}

static int op_begin_cpu(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	return op_sync(dmabuf, dir, true);
}

static int op_end_cpu(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	return op_sync(dmabuf, dir, false);
}

/* A mapping stays with the pages it was made for; a buffer that moves cannot be mapped. */
static int op_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct lab_buf *b = dmabuf->priv;
	unsigned long n = vma_pages(vma);
	int ret;

	if (b->flags & LAB_F_DYNAMIC)
		return -EOPNOTSUPP;
	mutex_lock(&b->lock);
	if (vma->vm_pgoff + n < n || vma->vm_pgoff + n > b->backing->npages)
		ret = -EINVAL;
	else
		ret = vm_map_pages(vma, b->backing->pages, b->backing->npages);
	mutex_unlock(&b->lock);
	return ret;
}

#define LAB_OPS_COMMON			\
	.attach = op_attach,		\
	.detach = op_detach,		\
	.map_dma_buf = op_map,		\
	.unmap_dma_buf = op_unmap,	\
	.release = op_release,		\
	.begin_cpu_access = op_begin_cpu,	\
	.end_cpu_access = op_end_cpu,	\
	.mmap = op_mmap

static const struct dma_buf_ops lab_static_ops = {
	LAB_OPS_COMMON,
};

static const struct dma_buf_ops lab_dynamic_ops = {
	LAB_OPS_COMMON,
	.pin = op_pin,
	.unpin = op_unpin,
};

#if LAB_HAS_CACHE_SGT
static const struct dma_buf_ops lab_cached_ops = {
	.cache_sgt_mapping = true,
	LAB_OPS_COMMON,
};
#endif

static const struct dma_buf_ops *pick_ops(u32 flags)
{
	if (flags & LAB_F_CACHE_SGT) {
#if LAB_HAS_CACHE_SGT
		return flags & LAB_F_DYNAMIC ? ERR_PTR(-EINVAL) : &lab_cached_ops;
#else
		return ERR_PTR(-EOPNOTSUPP);
#endif
	}
	return flags & LAB_F_DYNAMIC ? &lab_dynamic_ops : &lab_static_ops;
}

bool lab_is_own(struct dma_buf *dmabuf)
{
#if LAB_HAS_CACHE_SGT
	if (dmabuf->ops == &lab_cached_ops)
		return true;
#endif
	return dmabuf->ops == &lab_static_ops || dmabuf->ops == &lab_dynamic_ops;
}

/* ---- operations ---- */

static struct lab_buf *buf_create(const struct lab_req *q)
{
	struct lab_buf *b = kzalloc(sizeof(*b), GFP_KERNEL);

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
	b->backing = backing_alloc(q->size, q->run_pages, q->flags);
	if (IS_ERR(b->backing)) {
		struct lab_backing *k = b->backing;

		kfree(b);
		return ERR_CAST(k);
	}
	return b;
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
	const struct dma_buf_ops *ops = pick_ops(q->flags);
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
	backing_put(b->backing);
	kfree(b);
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
	struct lab_backing *old, *k = backing_alloc(b->size, b->run_pages, b->flags);

	if (IS_ERR(k))
		return PTR_ERR(k);
	mutex_lock(&b->lock);
	old = b->backing;
	b->backing = k;
	mutex_unlock(&b->lock);
	backing_put(old);
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
	if (dmabuf->ops == &lab_dynamic_ops) {
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
