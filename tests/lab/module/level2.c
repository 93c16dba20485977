// SPDX-License-Identifier: GPL-2.0
/*
 * Level 2: ranges of mapped buffers in contexts, by DMA address (nested) or by page (level 1
 * bypassed). They stay when level 1 ends: the dead address is what tests want to see.
 */
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "context.h"

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
	if (!ret && done != l->size)
		ret = -EINVAL;
	if (ret && done)
		iommu_unmap(x->domain, l->va, done);
	return ret;
}

/* Of a table without CPU entries, of which orig_nents is 0, the kernel maps nothing by itself. */
static bool has_pages(const struct sg_table *sgt)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(sgt->sgl, sg, sgt->orig_nents, i)
		if (!sg_page(sg) || !sg->length)
			return false;
	return true;
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

/* Whether this very range of this very mapping is there already. */
static bool is_there(struct lab_ctx *x, const struct lab_l2 *mine)
{
	struct lab_l2 *l;

	list_for_each_entry(l, &x->ranges, node)
		if (l->va == mine->va && l->size == mine->size && l->map == mine->map &&
		    l->offset == mine->offset && l->source == mine->source)
			return true;
	return false;
}

/*
 * What the kernel would only answer with a warning is refused here; a range may be forced over
 * itself, which changes nothing.
 */
static int l2_check(struct lab_ctx *x, struct lab_map *m, struct lab_l2 *l, bool force)
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
	if (force && is_there(x, l))
		return 0;
	return overlaps(x, l->va, l->size) ? -EEXIST : 0;
}

static void rec_l2(struct lab_rec *r, struct lab_ctx *x, const struct lab_l2 *l)
{
	lab_rec_ctx(r, x);
	r->ino = l->ino;
	r->size = l->buffer_size;
	r->attachment = l->attachment;
	r->map = l->map;
	r->va = l->va;
	r->offset = l->offset;
	r->bytes = l->size;
	r->source = l->source;
}

/* Keeps l in the context, or frees it where it is there already; not where it failed. */
static int l2_map_locked(struct lab_ctx *x, struct lab_map *m, struct lab_l2 *l, bool force)
{
	struct lab_rec r;
	int ret = l2_check(x, m, l, force);
	bool again = !ret && is_there(x, l);

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
	if (ret || again)
		lab_log_unreserve(1);
	else
		list_add_tail(&l->node, &x->ranges);
	if (!ret && again)
		kfree(l);
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
	x = lab_ctx_lock(q->context);
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
	l->dma_addr = sg_dma_address(m->sgt->sgl);
	l->translated = m->translated;
	l->ino = file_inode(a->dmabuf->file)->i_ino;
	l->buffer_size = a->dmabuf->size;
	l->size = q->size;
	if (!l->size && l->offset < l->buffer_size)
		l->size = l->buffer_size - l->offset;
	q->size = l->size;
	ret = l2_map_locked(x, m, l, q->flags & LAB_F_FORCE);
	lab_map_unlock(a);
unlock:
	lab_ctx_unlock(x);
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
		lab_rec_ctx(&r, x);	/* unmapping what is not mapped is legal, and to be seen */
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
	x = lab_ctx_lock(q->context);
	if (x) {
		ret = l2_unmap_locked(x, q, &tail);
		lab_ctx_unlock(x);
	}
	kfree(tail);
	return ret;
}

void lab_l2_unmap_all(struct lab_ctx *x)
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
