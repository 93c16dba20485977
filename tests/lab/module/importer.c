// SPDX-License-Identifier: GPL-2.0
/*
 * The importer's attachments: attach, detach, pin, unpin, and what a dynamic importer does
 * when the exporter moves the buffer.
 */
#include <linux/dma-resv.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "lab.h"

static DEFINE_XARRAY(atts);		/* by number; under lab_lock */
static u32 last_att;			/* under lab_lock */
static LIST_HEAD(orphans);		/* attachments no file owns */

static void att_release(struct kref *ref)
{
	kfree(container_of(ref, struct lab_att, ref));
}

void lab_att_put(struct lab_att *a)
{
	kref_put(&a->ref, att_release);
}

/* The attachment, referenced, locked and alive, or NULL. */
struct lab_att *lab_att_lock(u32 nr)
{
	struct lab_att *a;

	mutex_lock(&lab_lock);
	a = xa_load(&atts, nr);
	if (a)
		kref_get(&a->ref);
	mutex_unlock(&lab_lock);
	if (!a)
		return NULL;
	mutex_lock(&a->lock);
	if (a->attach)
		return a;
	lab_att_unlock(a);
	return NULL;
}

void lab_att_unlock(struct lab_att *a)
{
	mutex_unlock(&a->lock);
	lab_att_put(a);
}

/* A dynamic importer holds the reservation around map, unmap and pin; the core takes it else. */
void lab_resv_lock(struct lab_att *a)
{
	if (a->dynamic)
		dma_resv_lock(a->dmabuf->resv, NULL);
}

void lab_resv_unlock(struct lab_att *a)
{
	if (a->dynamic)
		dma_resv_unlock(a->dmabuf->resv);
}

void lab_rec_att(struct lab_rec *r, struct lab_att *a)
{
	lab_log_buffer(r, a->dmabuf);
	strscpy(r->device, dev_name(a->ldev->dev), sizeof(r->device));
	r->attachment = a->nr;
}

/* Called with the reservation held; one line for it is reserved by lab_move(). */
static void att_invalidated(struct dma_buf_attachment *attach)
{
	struct lab_att *a = attach->importer_priv;
	bool own = lab_is_own(attach->dmabuf);
	struct lab_rec r;

	lab_log_start(&r, LAB_EV_INVALIDATED);
	if (!a->ignore_move)
		lab_unmap_all(a);
	lab_log_stop(&r, 0);
	lab_rec_att(&r, a);
	if (own)
		lab_log_commit(&r);
	else
		lab_log_try(&r);
}

static const struct dma_buf_attach_ops att_ops = {
	.lab_move_notify_op = att_invalidated,
};

static const struct dma_buf_attach_ops att_p2p_ops = {
	.allow_peer2peer = true,
	.lab_move_notify_op = att_invalidated,
};

static struct dma_buf_attachment *attach_call(struct lab_att *a, u32 flags)
{
	if (!a->dynamic)
		return dma_buf_attach(a->dmabuf, a->ldev->dev);
	return dma_buf_dynamic_attach(a->dmabuf, a->ldev->dev,
				      flags & LAB_F_P2P ? &att_p2p_ops : &att_ops, a);
}

/* The number exists before the call, so that its own callbacks can name it. */
static void att_number(struct lab_att *a)
{
	mutex_lock(&lab_lock);
	a->nr = ++last_att;
	mutex_unlock(&lab_lock);
}

static int att_publish(struct lab_att *a, struct list_head *owner)
{
	int ret;

	mutex_lock(&lab_lock);
	ret = xa_err(xa_store(&atts, a->nr, a, GFP_KERNEL));
	if (!ret)
		list_add_tail(&a->node, owner);
	mutex_unlock(&lab_lock);
	return ret;
}

static struct lab_att *att_create(const struct lab_req *q)
{
	struct lab_att *a = kzalloc(sizeof(*a), GFP_KERNEL);
	int ret;

	if (!a)
		return ERR_PTR(-ENOMEM);
	kref_init(&a->ref);
	mutex_init(&a->lock);
	INIT_LIST_HEAD(&a->maps);
	a->dynamic = q->flags & LAB_F_DYNAMIC;
	a->ignore_move = q->flags & LAB_F_IGNORE_MOVE;
	a->dmabuf = dma_buf_get(q->fd);
	if (IS_ERR(a->dmabuf)) {
		ret = PTR_ERR(a->dmabuf);
		goto free;
	}
	a->ldev = lab_dev_get(q->device);
	ret = -ENODEV;
	if (!a->ldev)
		goto put;
	ret = lab_log_reserve(2);
	if (!ret)
		return a;
	lab_dev_put(a->ldev);
put:
	dma_buf_put(a->dmabuf);
free:
	kfree(a);
	return ERR_PTR(ret);
}

/* After the last call on it: no attachment, no buffer, no device. */
static void att_end(struct lab_att *a)
{
	struct dma_buf *dmabuf = a->dmabuf;

	a->attach = NULL;
	a->dmabuf = NULL;
	lab_dev_put(a->ldev);
	dma_buf_put(dmabuf);
}

/* Under a->lock, with no mappings left. */
static void att_detach(struct lab_att *a)
{
	struct lab_rec r;

	mutex_lock(&lab_lock);
	xa_erase(&atts, a->nr);
	list_del_init(&a->node);
	mutex_unlock(&lab_lock);
	lab_log_start(&r, LAB_EV_DETACH);
	lab_rec_att(&r, a);
	dma_buf_detach(a->dmabuf, a->attach);
	lab_log_stop(&r, 0);
	lab_log_commit(&r);
	att_end(a);
	lab_att_put(a);
}

int lab_attach(struct lab_client *c, struct lab_req *q)
{
	struct dma_buf_attachment *attach;
	struct lab_att *a = att_create(q);
	struct lab_rec r;
	int ret;

	if (IS_ERR(a))
		return PTR_ERR(a);
	att_number(a);
	lab_log_start(&r, LAB_EV_ATTACH);
	attach = attach_call(a, q->flags);
	lab_log_stop(&r, PTR_ERR_OR_ZERO(attach));
	lab_rec_att(&r, a);
	q->ino = r.ino;
	q->ns = r.ts_ns - r.start_ns;
	lab_log_commit(&r);
	if (IS_ERR(attach)) {
		lab_log_unreserve(1);
		att_end(a);
		lab_att_put(a);
		return PTR_ERR(attach);
	}
	mutex_lock(&a->lock);
	a->attach = attach;
	q->attachment = a->nr;
	ret = att_publish(a, q->flags & LAB_F_LEAK ? &orphans : &c->atts);
	kref_get(&a->ref);
	if (ret)
		att_detach(a);
	lab_att_unlock(a);
	return ret;
}

int lab_detach(struct lab_req *q)
{
	struct lab_att *a = lab_att_lock(q->attachment);
	int ret = 0;

	if (!a)
		return -ENOENT;
	lab_resv_lock(a);
	if (q->flags & LAB_F_FORCE)
		lab_forget_all(a);
	else if (!list_empty(&a->maps) || a->pins)
		ret = -EBUSY;
	lab_resv_unlock(a);
	if (!ret) {
		lab_log_unreserve(a->pins);
		a->pins = 0;
		att_detach(a);
	}
	lab_att_unlock(a);
	return ret;
}

int lab_pin(struct lab_req *q)
{
	struct lab_att *a = lab_att_lock(q->attachment);
	struct lab_rec r;
	int ret = -EINVAL;

	if (!a)
		return -ENOENT;
	if (!a->dynamic)
		goto unlock;
	ret = lab_log_reserve(2);
	if (ret)
		goto unlock;
	lab_resv_lock(a);
	lab_log_start(&r, LAB_EV_PIN);
	ret = dma_buf_pin(a->attach);
	lab_log_stop(&r, ret);
	lab_resv_unlock(a);
	lab_rec_att(&r, a);
	lab_log_commit(&r);
	if (ret)
		lab_log_unreserve(1);
	else
		a->pins++;
unlock:
	lab_att_unlock(a);
	return ret;
}

static void unpin_one(struct lab_att *a)
{
	struct lab_rec r;

	lab_resv_lock(a);
	lab_log_start(&r, LAB_EV_UNPIN);
	dma_buf_unpin(a->attach);
	lab_log_stop(&r, 0);
	lab_resv_unlock(a);
	lab_rec_att(&r, a);
	lab_log_commit(&r);
	a->pins--;
}

int lab_unpin(struct lab_req *q)
{
	struct lab_att *a = lab_att_lock(q->attachment);
	int ret = 0;

	if (!a)
		return -ENOENT;
	if (a->pins)
		unpin_one(a);
	else
		ret = -EINVAL;
	lab_att_unlock(a);
	return ret;
}

static void att_destroy(struct lab_att *a)
{
	mutex_lock(&a->lock);
	if (a->attach) {
		lab_resv_lock(a);
		lab_unmap_all(a);
		lab_resv_unlock(a);
		while (a->pins)
			unpin_one(a);
		att_detach(a);
	}
	mutex_unlock(&a->lock);
}

void lab_atts_destroy(struct list_head *list)
{
	struct lab_att *a;

	for (;;) {
		mutex_lock(&lab_lock);
		a = list_first_entry_or_null(list, struct lab_att, node);
		if (a)
			kref_get(&a->ref);
		mutex_unlock(&lab_lock);
		if (!a)
			return;
		att_destroy(a);
		lab_att_put(a);
	}
}

/* All attachments of everybody, or of one device, oldest first. */
void lab_atts_destroy_all(struct lab_dev *only)
{
	unsigned long nr = 0;
	struct lab_att *a;

	for (;;) {
		mutex_lock(&lab_lock);
		a = xa_find(&atts, &nr, ULONG_MAX, XA_PRESENT);
		if (a)
			kref_get(&a->ref);
		mutex_unlock(&lab_lock);
		if (!a)
			return;
		if (!only || a->ldev == only)
			att_destroy(a);
		lab_att_put(a);
		nr++;
	}
}
