// SPDX-License-Identifier: GPL-2.0
/*
 * Level 1: mapping attachments, the way static and dynamic importers do it.
 */
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/iommu.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "lab.h"

static DEFINE_XARRAY(maps);	/* by number; under lab_lock */
static u32 last_map;		/* under lab_lock */

static struct sg_table *map_call(struct lab_att *a, enum dma_data_direction dir)
{
	if (a->dynamic)
		return dma_buf_map_attachment(a->attach, dir);
	return dma_buf_map_attachment_unlocked(a->attach, dir);
}

static void unmap_call(struct lab_att *a, struct sg_table *sgt, enum dma_data_direction dir)
{
	if (a->dynamic)
		dma_buf_unmap_attachment(a->attach, sgt, dir);
	else
		dma_buf_unmap_attachment_unlocked(a->attach, sgt, dir);
}

/* Kernels differ in whether an exporter's NULL is turned into -ENOMEM. */
static int map_error(struct sg_table *sgt)
{
	return sgt ? PTR_ERR_OR_ZERO(sgt) : -ENOMEM;
}

static int map_publish(struct lab_map *m)
{
	int ret;

	mutex_lock(&lab_lock);
	ret = xa_err(xa_store(&maps, m->nr, m, GFP_KERNEL));
	mutex_unlock(&lab_lock);
	if (!ret)
		list_add_tail(&m->node, &m->att->maps);
	return ret;
}

static void map_number(struct lab_map *m)
{
	mutex_lock(&lab_lock);
	m->nr = ++last_map;
	mutex_unlock(&lab_lock);
}

static void map_forget(struct lab_map *m)
{
	mutex_lock(&lab_lock);
	xa_erase(&maps, m->nr);
	mutex_unlock(&lab_lock);
	list_del_init(&m->node);
	kfree(m);
}

/* Under the attachment's locks; the line was reserved by the map. */
static void unmap_one(struct lab_map *m, bool implicit)
{
	struct lab_att *a = m->att;
	struct lab_rec r;

	lab_log_start(&r, LAB_EV_UNMAP);
	lab_log_table(&r, m->sgt);
	r.start_ns = ktime_get_ns();
	unmap_call(a, m->sgt, m->dir);
	lab_log_stop(&r, 0);
	lab_rec_att(&r, a);
	r.implicit |= implicit;
	r.map = m->nr;
	r.direction = m->dir;
	lab_log_commit(&r);
	map_forget(m);
}

void lab_unmap_all(struct lab_att *a)
{
	struct lab_map *m, *next;

	list_for_each_entry_safe(m, next, &a->maps, node)
		unmap_one(m, true);
}

/* What a driver with a bug does: the mappings are dropped, not undone. */
void lab_forget_all(struct lab_att *a)
{
	struct lab_map *m, *next;

	list_for_each_entry_safe(m, next, &a->maps, node) {
		lab_log_unreserve(1);
		map_forget(m);
	}
}

struct lab_map *lab_map_lock(u32 nr)
{
	struct lab_att *a = NULL;
	struct lab_map *m;
	u32 att = 0;

	mutex_lock(&lab_lock);
	m = xa_load(&maps, nr);
	if (m)
		att = m->att->nr;
	mutex_unlock(&lab_lock);
	if (m)
		a = lab_att_lock(att);
	if (!a)
		return NULL;
	lab_resv_lock(a);
	mutex_lock(&lab_lock);
	m = xa_load(&maps, nr);
	mutex_unlock(&lab_lock);
	if (!m)
		lab_map_unlock(a);
	return m;
}

void lab_map_unlock(struct lab_att *a)
{
	lab_resv_unlock(a);
	lab_att_unlock(a);
}

u32 lab_map_after(u32 nr)
{
	return lab_number_after(&maps, nr);
}

static bool is_translated(struct device *dev)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return domain && domain->type & __IOMMU_DOMAIN_PAGING;
}

/* Bytes from the first entry on that are contiguous for the device. */
static u64 first_run(const struct sg_table *sgt)
{
	struct scatterlist *sg;
	dma_addr_t next = 0;
	unsigned int i;
	u64 run = 0;

	for_each_sg(sgt->sgl, sg, sgt->nents, i) {
		if (i && sg_dma_address(sg) != next)
			break;
		run += sg_dma_len(sg);
		next = sg_dma_address(sg) + sg_dma_len(sg);
	}
	return run;
}

/* As vb2-dma-contig and the DRM DMA helpers do: one run, or undo the map and refuse. */
static int want_one_run(struct lab_map *m)
{
	struct lab_att *a = m->att;
	struct lab_rec r;
	u64 run = first_run(m->sgt);

	if (run >= a->dmabuf->size)
		return 0;
	lab_log_start(&r, LAB_EV_REJECT);
	lab_rec_att(&r, a);
	lab_log_table(&r, m->sgt);
	r.direction = m->dir;
	r.map = m->nr;
	r.bytes = run;
	unmap_one(m, false);
	lab_log_stop(&r, -EINVAL);
	lab_log_commit(&r);
	return -EINVAL;
}

static int map_do(struct lab_map *m, struct lab_req *q)
{
	struct lab_att *a = m->att;
	struct lab_rec r;
	int ret;

	lab_log_start(&r, LAB_EV_MAP);
	m->sgt = map_call(a, m->dir);
	ret = map_error(m->sgt);
	lab_log_stop(&r, ret);
	lab_rec_att(&r, a);
	r.direction = m->dir;
	r.map = m->nr;
	if (!ret)
		lab_log_table(&r, m->sgt);
	lab_log_commit(&r);
	q->ino = r.ino;
	q->nents = r.nents;
	q->orig_nents = r.orig_nents;
	q->dma_addr = r.dma_addr;
	q->dma_len = r.dma_len;
	q->dma_sum = r.dma_sum;
	q->ns = r.ts_ns - r.start_ns;
	return ret;
}

/* Lines: map, unmap, and perhaps the rejection; those not used are given back. */
static int map_locked(struct lab_att *a, struct lab_req *q)
{
	bool one_run = q->flags & LAB_F_ONE_RUN;
	struct lab_map *m = kzalloc(sizeof(*m), GFP_KERNEL);
	int ret;

	if (!m)
		return -ENOMEM;
	ret = lab_log_reserve(2 + one_run);
	if (ret)
		goto free;
	m->att = a;
	m->dir = q->direction;
	m->translated = is_translated(a->ldev->dev);
	map_number(m);
	ret = map_do(m, q);
	if (ret) {
		lab_log_unreserve(1 + one_run);
		goto free;
	}
	q->map = m->nr;
	ret = map_publish(m);
	if (ret) {
		INIT_LIST_HEAD(&m->node);
		unmap_one(m, true);
		lab_log_unreserve(one_run);
		return ret;
	}
	if (!one_run)
		return 0;
	ret = want_one_run(m);
	if (!ret)
		lab_log_unreserve(1);
	return ret;
free:
	kfree(m);
	return ret;
}

int lab_map(struct lab_req *q)
{
	struct lab_att *a = lab_att_lock(q->attachment);
	int ret;

	if (!a)
		return -ENOENT;
	lab_resv_lock(a);
	ret = map_locked(a, q);
	lab_map_unlock(a);
	return ret;
}

int lab_unmap(struct lab_req *q)
{
	struct lab_map *m = lab_map_lock(q->map);
	struct lab_att *a;

	if (!m)
		return -ENOENT;
	a = m->att;
	q->attachment = a->nr;
	unmap_one(m, false);
	lab_map_unlock(a);
	return 0;
}

/* count pairs of map and unmap and nothing else, for measurements; one line in the log. */
static int loop_locked(struct lab_att *a, struct lab_req *q)
{
	struct sg_table *sgt;
	struct lab_rec r;
	u32 i;
	int ret = lab_log_reserve(1);

	if (ret)
		return ret;
	lab_log_start(&r, LAB_EV_MAP_LOOP);
	for (i = 0; !ret && i < q->count; i++) {
		sgt = map_call(a, q->direction);
		ret = map_error(sgt);
		if (!ret)
			unmap_call(a, sgt, q->direction);
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
	}
	lab_log_stop(&r, ret);
	lab_rec_att(&r, a);
	r.direction = q->direction;
	r.count = i;
	lab_log_commit(&r);
	q->count = i;
	q->ns = r.ts_ns - r.start_ns;
	return ret;
}

int lab_map_loop(struct lab_req *q)
{
	struct lab_att *a = lab_att_lock(q->attachment);
	int ret;

	if (!a)
		return -ENOENT;
	lab_resv_lock(a);
	ret = loop_locked(a, q);
	lab_map_unlock(a);
	return ret;
}
