// SPDX-License-Identifier: GPL-2.0
/*
 * Level 2: contexts, each an address space of its own. A domain context is a private IOMMU
 * domain its edu device can be switched to; a gpuvm context is a drm_gpuvm, brought by
 * dmabuf_lab_vm.ko. Ranges of mapped buffers go in by DMA address (nested) or by page (level 1
 * bypassed), and stay when level 1 ends: the dead address is what tests want to see.
 */
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "lab.h"

/* A mapped range. What it needs to be undone and named, and nothing that can go away. */
struct lab_l2 {
	struct list_head node;
	u64 va;
	u64 size;
	u64 offset;
	u64 ino;
	u64 buffer_size;
	u32 source;
	u32 attachment;
	u32 map;
};

struct lab_ctx {
	struct kref ref;
	struct mutex lock;
	struct list_head node;		/* under lab_lock */
	struct list_head ranges;
	struct lab_dev *ldev;
	struct iommu_domain *domain;
	const struct lab_vm_ops *vm_ops;
	void *vm;
	u32 nr;
	u32 kind;
	bool attached;			/* under the device's lock */
	bool alive;
};

static DEFINE_XARRAY(ctxs);		/* by number; under lab_lock */
static u32 last_ctx;			/* under lab_lock */
static LIST_HEAD(orphans);
static const struct lab_vm_ops *vm_provider;	/* under lab_lock */

/* ---- the drm_gpuvm part ---- */

int lab_vm_register(const struct lab_vm_ops *ops)
{
	int ret = 0;

	mutex_lock(&lab_lock);
	if (vm_provider)
		ret = -EBUSY;
	else
		vm_provider = ops;
	mutex_unlock(&lab_lock);
	return ret;
}
EXPORT_SYMBOL_GPL(lab_vm_register);

/* The provider's module cannot go while a context holds it. */
void lab_vm_unregister(const struct lab_vm_ops *ops)
{
	mutex_lock(&lab_lock);
	if (vm_provider == ops)
		vm_provider = NULL;
	mutex_unlock(&lab_lock);
}
EXPORT_SYMBOL_GPL(lab_vm_unregister);

static const struct lab_vm_ops *vm_get(void)
{
	const struct lab_vm_ops *ops;

	mutex_lock(&lab_lock);
	ops = vm_provider;
	if (ops && !try_module_get(ops->owner))
		ops = NULL;
	mutex_unlock(&lab_lock);
	return ops;
}

/* ---- contexts ---- */

/* The device and the provider stay as long as anybody can reach them through the context. */
static void ctx_release(struct kref *ref)
{
	struct lab_ctx *x = container_of(ref, struct lab_ctx, ref);

	lab_dev_put(x->ldev);
	if (x->vm_ops)
		module_put(x->vm_ops->owner);
	kfree(x);
}

static void ctx_put(struct lab_ctx *x)
{
	kref_put(&x->ref, ctx_release);
}

static struct lab_ctx *ctx_get(u32 nr)
{
	struct lab_ctx *x;

	mutex_lock(&lab_lock);
	x = xa_load(&ctxs, nr);
	if (x)
		kref_get(&x->ref);
	mutex_unlock(&lab_lock);
	return x;
}

/* Locked and alive, its device locked too, or NULL. */
static struct lab_ctx *ctx_lock(u32 nr)
{
	struct lab_ctx *x = ctx_get(nr);

	if (!x)
		return NULL;
	mutex_lock(&x->ldev->lock);
	mutex_lock(&x->lock);
	if (x->alive)
		return x;
	mutex_unlock(&x->lock);
	mutex_unlock(&x->ldev->lock);
	ctx_put(x);
	return NULL;
}

static void ctx_unlock(struct lab_ctx *x)
{
	mutex_unlock(&x->lock);
	mutex_unlock(&x->ldev->lock);
	ctx_put(x);
}

static void rec_ctx(struct lab_rec *r, struct lab_ctx *x)
{
	strscpy(r->device, dev_name(x->ldev->dev), sizeof(r->device));
	r->context = x->nr;
	r->kind = x->kind;
}

static int ctx_open(struct lab_ctx *x)
{
	if (x->kind == LAB_KIND_DOMAIN) {
		if (!device_iommu_mapped(x->ldev->dev))
			return -ENODEV;
		x->domain = lab_domain_alloc(x->ldev->dev);
		return PTR_ERR_OR_ZERO(x->domain);
	}
	x->vm = x->vm_ops->create(x->ldev->dev);
	return PTR_ERR_OR_ZERO(x->vm);
}

static void ctx_close(struct lab_ctx *x)
{
	if (x->kind == LAB_KIND_DOMAIN)
		iommu_domain_free(x->domain);
	else
		x->vm_ops->free(x->vm);
}

static struct lab_ctx *ctx_new(struct lab_req *q)
{
	struct lab_ctx *x = kzalloc(sizeof(*x), GFP_KERNEL);

	if (!x)
		return ERR_PTR(-ENOMEM);
	kref_init(&x->ref);
	mutex_init(&x->lock);
	INIT_LIST_HEAD(&x->ranges);
	x->kind = q->kind;
	x->alive = true;
	if (x->kind == LAB_KIND_GPUVM) {
		x->vm_ops = vm_get();
		if (!x->vm_ops) {
			kfree(x);
			return ERR_PTR(-EOPNOTSUPP);
		}
	}
	x->ldev = lab_dev_get(q->device);
	if (x->ldev)
		return x;
	if (x->vm_ops)
		module_put(x->vm_ops->owner);
	kfree(x);
	return ERR_PTR(-ENODEV);
}

static int ctx_publish(struct lab_ctx *x, struct list_head *owner)
{
	int ret;

	mutex_lock(&lab_lock);
	x->nr = ++last_ctx;
	ret = xa_err(xa_store(&ctxs, x->nr, x, GFP_KERNEL));
	if (!ret)
		list_add_tail(&x->node, owner);
	mutex_unlock(&lab_lock);
	return ret;
}

int lab_ctx_create(struct lab_client *c, struct lab_req *q)
{
	struct lab_ctx *x;
	struct lab_rec r;
	int ret;

	if (q->kind != LAB_KIND_DOMAIN && q->kind != LAB_KIND_GPUVM)
		return -EINVAL;
	x = ctx_new(q);
	if (IS_ERR(x))
		return PTR_ERR(x);
	ret = lab_log_reserve(2);
	if (ret)
		goto drop;
	mutex_lock(&x->lock);
	lab_log_start(&r, LAB_EV_CONTEXT_CREATE);
	ret = ctx_open(x);
	lab_log_stop(&r, ret);
	if (!ret) {
		ret = ctx_publish(x, q->flags & LAB_F_LEAK ? &orphans : &c->ctxs);
		if (ret)
			ctx_close(x);
	}
	rec_ctx(&r, x);
	r.result = ret;
	lab_log_commit(&r);
	mutex_unlock(&x->lock);
	q->context = x->nr;
	q->ns = r.ts_ns - r.start_ns;
	if (!ret)
		return 0;
	lab_log_unreserve(1);
drop:
	ctx_put(x);
	return ret;
}

/* ---- switching the device ---- */

/*
 * iommu_attach_device() takes a device out of its default domain when it is alone in its
 * group, on all kernels from 6.1 to 7.2 and without a claim of DMA ownership: DRM drivers
 * rely on it. Level-1 mappings of the device stay, dead until it is switched back.
 */
int lab_ctx_attach(struct lab_req *q)
{
	struct lab_ctx *x = ctx_lock(q->context);
	struct lab_rec r;
	int ret = -EINVAL;

	if (!x)
		return -ENOENT;
	if (x->kind != LAB_KIND_DOMAIN)
		goto unlock;
	ret = x->ldev->attached ? -EBUSY : lab_log_reserve(2);
	if (ret)
		goto unlock;
	lab_log_start(&r, LAB_EV_CONTEXT_ATTACH);
	ret = iommu_attach_device(x->domain, x->ldev->dev);
	lab_log_stop(&r, ret);
	rec_ctx(&r, x);
	lab_log_commit(&r);
	if (ret) {
		lab_log_unreserve(1);
	} else {
		x->attached = true;
		x->ldev->attached = x;
	}
unlock:
	ctx_unlock(x);
	return ret;
}

static void switch_back(struct lab_ctx *x)
{
	struct lab_rec r;

	lab_log_start(&r, LAB_EV_CONTEXT_DETACH);
	iommu_detach_device(x->domain, x->ldev->dev);
	lab_log_stop(&r, 0);
	rec_ctx(&r, x);
	lab_log_commit(&r);
	x->attached = false;
	x->ldev->attached = NULL;
}

int lab_ctx_detach(struct lab_req *q)
{
	struct lab_ctx *x = ctx_lock(q->context);
	int ret = 0;

	if (!x)
		return -ENOENT;
	if (x->attached)
		switch_back(x);
	else
		ret = -EINVAL;
	ctx_unlock(x);
	return ret;
}

/* ---- mapping ---- */

#define L2_PROT	(IOMMU_READ | IOMMU_WRITE)

/* The DMA side of a table from offset on, entry by entry. */
static int domain_map_dma(struct lab_ctx *x, const struct sg_table *sgt, struct lab_l2 *l)
{
	u64 skip = l->offset, done = 0;
	struct scatterlist *sg;
	unsigned int i;
	int ret;

	for_each_sg(sgt->sgl, sg, sgt->nents, i) {
		u64 len = sg_dma_len(sg), from = min(skip, len);

		skip -= from;
		len = min(len - from, l->size - done);
		if (!len)
			continue;
		ret = lab_iommu_map(x->domain, l->va + done, sg_dma_address(sg) + from, len, L2_PROT);
		if (ret) {
			if (done)
				iommu_unmap(x->domain, l->va, done);
			return ret;
		}
		done += len;
	}
	if (done == l->size)
		return 0;
	if (done)
		iommu_unmap(x->domain, l->va, done);
	return -EINVAL;
}

static int domain_map_part(struct lab_ctx *x, const struct sg_table *sgt, struct lab_l2 *l)
{
	u64 skip = l->offset, done = 0;
	struct scatterlist *sg;
	unsigned int i;
	int ret = 0;

	for_each_sg(sgt->sgl, sg, sgt->orig_nents, i) {
		u64 len = sg->length, from = min(skip, len);

		skip -= from;
		len = min(len - from, l->size - done);
		if (!len)
			continue;
		ret = lab_iommu_map(x->domain, l->va + done, sg_phys(sg) + from, len, L2_PROT);
		if (ret)
			break;
		done += len;
	}
	if (ret && done)
		iommu_unmap(x->domain, l->va, done);
	return ret;
}

static bool has_pages(const struct sg_table *sgt)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(sgt->sgl, sg, sgt->orig_nents, i)
		if (!sg_page(sg) || !sg->length)
			return false;
	return sgt->orig_nents;
}

/* Whole buffers go in as drivers do it, by iommu_map_sg() over all CPU entries. */
static int domain_map_pages(struct lab_ctx *x, const struct sg_table *sgt, struct lab_l2 *l)
{
	ssize_t done;

	if (l->offset || l->size != l->buffer_size)
		return domain_map_part(x, sgt, l);
	done = lab_iommu_map_sg(x->domain, l->va, sgt->sgl, sgt->orig_nents, L2_PROT);
	if (done == l->size)
		return 0;
	if (done > 0)
		iommu_unmap(x->domain, l->va, done);
	return done < 0 ? done : -EINVAL;
}

static int l2_do(struct lab_ctx *x, struct lab_map *m, struct lab_l2 *l)
{
	if (x->kind == LAB_KIND_GPUVM)
		return x->vm_ops->map(x->vm, m->att->attach, m->att->nr, l->va, l->offset, l->size);
	if (l->source == LAB_SOURCE_PAGES)
		return domain_map_pages(x, m->sgt, l);
	return domain_map_dma(x, m->sgt, l);
}

static bool overlaps(struct lab_ctx *x, u64 va, u64 size)
{
	struct lab_l2 *l;

	list_for_each_entry(l, &x->ranges, node)
		if (va < l->va + l->size && l->va < va + size)
			return true;
	return false;
}

/* What the kernel would only answer with a warning is refused here. */
static int l2_check(struct lab_ctx *x, struct lab_map *m, struct lab_l2 *l)
{
	u64 last = l->va + l->size - 1;

	if (!l->size || (l->va | l->size | l->offset) & ~PAGE_MASK || last < l->va)
		return -EINVAL;
	if (l->offset > l->buffer_size || l->size > l->buffer_size - l->offset)
		return -EINVAL;
	if (l->source > LAB_SOURCE_PAGES)
		return -EINVAL;
	if (l->source == LAB_SOURCE_PAGES && !has_pages(m->sgt))
		return -EINVAL;
	if (x->kind != LAB_KIND_DOMAIN)
		return 0;
	if (last > x->domain->geometry.aperture_end || last >> 38)
		return -ERANGE;
	return overlaps(x, l->va, l->size) ? -EEXIST : 0;
}

static void rec_l2(struct lab_rec *r, struct lab_ctx *x, const struct lab_l2 *l)
{
	rec_ctx(r, x);
	r->ino = l->ino;
	r->size = l->buffer_size;
	r->attachment = l->attachment;
	r->map = l->map;
	r->va = l->va;
	r->offset = l->offset;
	r->bytes = l->size;
	r->source = l->source;
}

static int l2_map_locked(struct lab_ctx *x, struct lab_map *m, struct lab_l2 *l)
{
	struct lab_rec r;
	int ret = l2_check(x, m, l);

	if (!ret)
		ret = lab_log_reserve(2);
	if (ret)
		return ret;
	lab_log_start(&r, LAB_EV_L2_MAP);
	ret = l2_do(x, m, l);
	lab_log_stop(&r, ret);
	rec_l2(&r, x, l);
	lab_log_table(&r, m->sgt);
	strscpy(r.exporter, m->att->dmabuf->exp_name, sizeof(r.exporter));
	lab_log_commit(&r);
	if (ret)
		lab_log_unreserve(1);
	else
		list_add_tail(&l->node, &x->ranges);
	return ret;
}

int lab_l2_map(struct lab_req *q)
{
	struct lab_l2 *l = kzalloc(sizeof(*l), GFP_KERNEL);
	struct lab_ctx *x;
	struct lab_map *m;
	struct lab_att *a;
	int ret = -ENOENT;

	if (!l)
		return -ENOMEM;
	x = ctx_lock(q->context);
	if (!x)
		goto free;
	m = lab_map_lock(q->map);
	if (!m)
		goto unlock;
	a = m->att;
	l->va = q->va;
	l->offset = q->offset;
	l->source = q->source;
	l->attachment = a->nr;
	l->map = m->nr;
	l->ino = file_inode(a->dmabuf->file)->i_ino;
	l->buffer_size = a->dmabuf->size;
	l->size = q->size;
	if (!l->size && l->offset < l->buffer_size)
		l->size = l->buffer_size - l->offset;
	ret = l2_map_locked(x, m, l);
	q->size = l->size;
	lab_map_unlock(a);
unlock:
	ctx_unlock(x);
free:
	if (ret)
		kfree(l);
	return ret;
}

/* ---- unmapping ---- */

static u64 l2_undo(struct lab_ctx *x, u64 va, u64 size)
{
	u64 undone = 0;

	if (x->kind == LAB_KIND_DOMAIN)
		return iommu_unmap(x->domain, va, size);
	return x->vm_ops->unmap(x->vm, va, size, &undone) ? 0 : undone;
}

static struct lab_l2 *range_at(struct lab_ctx *x, u64 va)
{
	struct lab_l2 *l;

	list_for_each_entry(l, &x->ranges, node)
		if (va >= l->va && va - l->va < l->size)
			return l;
	return NULL;
}

/* Is all of [va, va + size) mapped? */
static bool covered(struct lab_ctx *x, u64 va, u64 size)
{
	u64 end = va + size;
	struct lab_l2 *l;

	while (va < end) {
		l = range_at(x, va);
		if (!l)
			return false;
		va = l->va + l->size;
	}
	return true;
}

/*
 * Takes [va, va + size) out of the ranges; tail is used up, and NULL afterwards, when a range
 * is cut in two. Each range has one line reserved for its end.
 */
static void cut(struct lab_ctx *x, u64 va, u64 size, struct lab_l2 **tail)
{
	struct lab_l2 *l, *next;
	u64 end = va + size;

	list_for_each_entry_safe(l, next, &x->ranges, node) {
		u64 l_end = l->va + l->size;

		if (l->va >= end || l_end <= va)
			continue;
		if (l->va < va && l_end > end) {
			**tail = *l;
			(*tail)->va = end;
			(*tail)->offset += end - l->va;
			(*tail)->size = l_end - end;
			list_add(&(*tail)->node, &l->node);
			*tail = NULL;
			l->size = va - l->va;
		} else if (l->va < va) {
			l->size = va - l->va;
		} else if (l_end > end) {
			l->offset += end - l->va;
			l->size = l_end - end;
			l->va = end;
		} else {
			list_del(&l->node);
			kfree(l);
			lab_log_unreserve(1);
		}
	}
}

static int l2_unmap_locked(struct lab_ctx *x, struct lab_req *q, struct lab_l2 **tail)
{
	struct lab_l2 *l = range_at(x, q->va);
	u64 size = q->size;
	struct lab_rec r;
	int ret;

	if (!size || (q->va | size) & ~PAGE_MASK || q->va + size < q->va || (q->va + size) >> 38)
		return -EINVAL;
	/* iommu_unmap() stops at a hole; on arm64 it warns there (io-pgtable), so only if forced. */
	if (!(q->flags & LAB_F_FORCE) && x->kind == LAB_KIND_DOMAIN && !covered(x, q->va, size))
		return -ENOENT;
	ret = lab_log_reserve(2);
	if (ret)
		return ret;
	lab_log_start(&r, LAB_EV_L2_UNMAP);
	q->size = l2_undo(x, q->va, size);
	lab_log_stop(&r, 0);
	if (l)
		rec_l2(&r, x, l);
	else
		rec_ctx(&r, x);	/* unmapping what is not mapped is legal, and to be seen */
	r.offset += l ? q->va - l->va : 0;
	r.va = q->va;
	r.bytes = q->size;
	r.count = size >> PAGE_SHIFT;
	lab_log_commit(&r);
	cut(x, q->va, q->size, tail);
	if (*tail)
		lab_log_unreserve(1);
	return 0;
}

int lab_l2_unmap(struct lab_req *q)
{
	struct lab_l2 *tail = kzalloc(sizeof(*tail), GFP_KERNEL);
	struct lab_ctx *x;
	int ret = -ENOENT;

	if (!tail)
		return -ENOMEM;
	x = ctx_lock(q->context);
	if (x) {
		ret = l2_unmap_locked(x, q, &tail);
		ctx_unlock(x);
	}
	kfree(tail);
	return ret;
}

/* ---- the end ---- */

static void unmap_ranges(struct lab_ctx *x)
{
	struct lab_l2 *l, *next;
	struct lab_rec r;

	list_for_each_entry_safe(l, next, &x->ranges, node) {
		u64 undone;

		lab_log_start(&r, LAB_EV_L2_UNMAP);
		undone = l2_undo(x, l->va, l->size);
		lab_log_stop(&r, 0);
		rec_l2(&r, x, l);
		r.bytes = undone;
		r.count = l->size >> PAGE_SHIFT;
		r.implicit = true;
		lab_log_commit(&r);
		list_del(&l->node);
		kfree(l);
	}
}

/* Locked; the caller drops the table's reference. */
static void ctx_end(struct lab_ctx *x)
{
	struct lab_rec r;

	mutex_lock(&lab_lock);
	xa_erase(&ctxs, x->nr);
	list_del_init(&x->node);
	mutex_unlock(&lab_lock);
	if (x->attached)
		switch_back(x);
	unmap_ranges(x);
	lab_log_start(&r, LAB_EV_CONTEXT_FREE);
	ctx_close(x);
	lab_log_stop(&r, 0);
	rec_ctx(&r, x);
	lab_log_commit(&r);
	x->alive = false;
}

static int ctx_destroy(u32 nr)
{
	struct lab_ctx *x = ctx_lock(nr);

	if (!x)
		return -ENOENT;
	ctx_end(x);
	ctx_unlock(x);
	ctx_put(x);	/* the table's reference */
	return 0;
}

int lab_ctx_free(struct lab_req *q)
{
	return ctx_destroy(q->context);
}

void lab_ctxs_destroy(struct list_head *list)
{
	struct lab_ctx *x;
	u32 nr;

	for (;;) {
		mutex_lock(&lab_lock);
		x = list_first_entry_or_null(list, struct lab_ctx, node);
		nr = x ? x->nr : 0;
		mutex_unlock(&lab_lock);
		if (!x)
			return;
		ctx_destroy(nr);
	}
}

void lab_ctxs_destroy_all(struct lab_dev *only)
{
	unsigned long nr = 0;
	struct lab_ctx *x;
	bool match;

	for (;;) {
		mutex_lock(&lab_lock);
		x = xa_find(&ctxs, &nr, ULONG_MAX, XA_PRESENT);
		match = x && (!only || x->ldev == only);
		mutex_unlock(&lab_lock);
		if (!x)
			return;
		if (match)
			ctx_destroy(nr);
		nr++;
	}
}

/*
 * May the device do real DMA there while it is switched to this context? Not through a nested
 * range: it would hit physical memory at what are only level-1 addresses.
 */
bool lab_ctx_dma_ok(struct lab_ctx *x, u64 addr, u64 size)
{
	struct lab_l2 *l;
	bool ok = true;

	mutex_lock(&x->lock);
	list_for_each_entry(l, &x->ranges, node)
		if (l->source == LAB_SOURCE_DMA && addr < l->va + l->size && l->va < addr + size)
			ok = false;
	mutex_unlock(&x->lock);
	return ok;
}
