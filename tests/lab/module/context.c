// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts, each an address space of its own. A domain context is a private IOMMU domain its
 * edu device can be switched to; a gpuvm context is a drm_gpuvm, brought by dmabuf_lab_vm.ko.
 */
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "context.h"

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
struct lab_ctx *lab_ctx_lock(u32 nr)
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

void lab_ctx_unlock(struct lab_ctx *x)
{
	mutex_unlock(&x->lock);
	mutex_unlock(&x->ldev->lock);
	ctx_put(x);
}

u32 lab_ctx_after(u32 nr)
{
	return lab_number_after(&ctxs, nr);
}

void lab_rec_ctx(struct lab_rec *r, struct lab_ctx *x)
{
	strscpy(r->device, dev_name(x->ldev->dev), sizeof(r->device));
	r->context = x->nr;
	r->kind = x->kind;
}

static int ctx_open(struct lab_ctx *x, bool by_bus)
{
	if (x->kind == LAB_KIND_DOMAIN) {
		if (!device_iommu_mapped(x->ldev->dev))
			return -ENODEV;
		x->domain = lab_domain_alloc(x->ldev->dev, by_bus);
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
	ret = ctx_open(x, q->flags & LAB_F_BY_BUS);
	lab_log_stop(&r, ret);
	if (!ret) {
		ret = ctx_publish(x, q->flags & LAB_F_LEAK ? &orphans : &c->ctxs);
		if (ret)
			ctx_close(x);
	}
	lab_rec_ctx(&r, x);
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
	struct lab_ctx *x = lab_ctx_lock(q->context);
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
	lab_rec_ctx(&r, x);
	lab_log_commit(&r);
	if (ret) {
		lab_log_unreserve(1);
	} else {
		x->attached = true;
		x->ldev->attached = x;
	}
unlock:
	lab_ctx_unlock(x);
	return ret;
}

static void switch_back(struct lab_ctx *x)
{
	struct lab_rec r;

	lab_log_start(&r, LAB_EV_CONTEXT_DETACH);
	iommu_detach_device(x->domain, x->ldev->dev);
	lab_log_stop(&r, 0);
	lab_rec_ctx(&r, x);
	lab_log_commit(&r);
	x->attached = false;
	x->ldev->attached = NULL;
}

int lab_ctx_detach(struct lab_req *q)
{
	struct lab_ctx *x = lab_ctx_lock(q->context);
	int ret = 0;

	if (!x)
		return -ENOENT;
	if (x->attached)
		switch_back(x);
	else
		ret = -EINVAL;
	lab_ctx_unlock(x);
	return ret;
}

/* ---- the end ---- */

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
	lab_l2_unmap_all(x);
	lab_log_start(&r, LAB_EV_CONTEXT_FREE);
	ctx_close(x);
	lab_log_stop(&r, 0);
	lab_rec_ctx(&r, x);
	lab_log_commit(&r);
	x->alive = false;
}

static int ctx_destroy(u32 nr)
{
	struct lab_ctx *x = lab_ctx_lock(nr);

	if (!x)
		return -ENOENT;
	ctx_end(x);
	lab_ctx_unlock(x);
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
