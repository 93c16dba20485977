// SPDX-License-Identifier: GPL-2.0
/*
 * The exporter: what own buffers do when the core calls them. With or without pin (dynamic) and
 * table caching, failing or slow where told to.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "lab.h"

static bool log_callbacks;
module_param(log_callbacks, bool, 0644);
MODULE_PARM_DESC(log_callbacks, "also log the callbacks of own buffers, as cb-* lines");

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

/* ---- delays ---- */

/* Sleeps, and spins for the last of it: as long as told, by the clock traces go by, and no more. */
static void delay_now(const struct lab_buf *b)
{
	u64 now = ktime_get_ns(), end = now + b->delay_ms * (u64)NSEC_PER_MSEC;

	for (; now < end; now = ktime_get_ns()) {
		u64 us = (end - now) / NSEC_PER_USEC;

		if (us > 2000)
			usleep_range(us - 2000, us - 1500);
		else
			cpu_relax();
	}
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

/* ---- peer to peer ---- */

/* As exporters with memory of their own decide it; the PCI core tells the kernel's log why not. */
static void grant_p2p(const struct lab_buf *b, struct dma_buf_attachment *attach)
{
	if (b->provider && attach->peer2peer &&
	    pci_p2pdma_distance(b->provider->pci, attach->dev, true) < 0)
		attach->peer2peer = false;
}

/* ---- dma_buf_ops ---- */

static int op_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct lab_buf *b = dmabuf->priv;
	u64 start = ktime_get_ns();
	int ret;

	if (b->flags & LAB_F_DELAY_ATTACH)
		delay_now(b);
	ret = fail_now(b, LAB_FAIL_ATTACH);
	if (!ret)
		grant_p2p(b, attach);
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
	lab_backing_put(x->backing);
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
	if (b->shape != LAB_SHAPE_UNTRANSLATED && b->shape != LAB_SHAPE_BAR) {
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

	if (!(b->flags & (LAB_F_DELAY_ATTACH | LAB_F_DELAY_RELEASE)))
		delay_now(b);
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
	if (b->flags & LAB_F_DELAY_RELEASE)
		delay_now(b);
	r.ino = b->ino;
	r.size = b->size;
	strscpy(r.exporter, dmabuf->exp_name, sizeof(r.exporter));
	lab_buf_free(b);
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

/* The operations for these flags; ERR_PTR() where they contradict or the kernel has no such. */
const struct dma_buf_ops *lab_pick_ops(u32 flags)
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

bool lab_is_dynamic(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &lab_dynamic_ops;
}
