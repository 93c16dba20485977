// SPDX-License-Identifier: GPL-2.0
/*
 * GPU VMs for the lab driver: a drm_gpuvm a context, a GEM object a (VM, attachment) with its
 * import_attach set as drm_gem_prime_import() would, a drm_gpuva a range. There is no GPU, so
 * nothing is written to page tables; xe, nouveau, panthor and msm do their book-keeping by the
 * same calls. In a module of its own, for kernels without drm_gpuvm.
 */
#include <drm/drm_drv.h>
#include <drm/drm_gem.h>
#include <drm/drm_gpuvm.h>
#include <linux/dma-resv.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "lab.h"

#define VM_START	0x10000ULL
#define VM_RANGE	(1ULL << 47)

/* A device has one DRM device, as with a real driver, however many VMs. */
struct lab_drm {
	struct list_head node;
	struct drm_device *drm;
	unsigned int users;
};

static LIST_HEAD(drms);
static DEFINE_MUTEX(drms_lock);

struct lab_vm {
	struct drm_gpuvm base;
	struct lab_drm *d;
};

/* The attachment may end before the object: its pointer is kept, never followed. */
struct lab_bo {
	struct drm_gem_object base;
	u32 attachment;
};

/* What sm_step_*() gathers. */
struct unmap_job {
	u64 bytes;
};

static void bo_free(struct drm_gem_object *obj)
{
	obj->import_attach = NULL;
	drm_gem_object_release(obj);
	kfree(container_of(obj, struct lab_bo, base));
}

static const struct drm_gem_object_funcs bo_funcs = {
	.free = bo_free,
};

static const struct drm_driver vm_driver = {
	.driver_features = DRIVER_GEM | DRIVER_GEM_GPUVA,
	.name = "dmabuf_lab",
	.desc = "dma-buf lab",
};

static struct lab_drm *drm_new(struct device *dev)
{
	struct lab_drm *d = kzalloc(sizeof(*d), GFP_KERNEL);

	if (!d)
		return ERR_PTR(-ENOMEM);
	d->drm = drm_dev_alloc(&vm_driver, dev);
	if (IS_ERR(d->drm)) {
		int ret = PTR_ERR(d->drm);

		kfree(d);
		return ERR_PTR(ret);
	}
	list_add(&d->node, &drms);
	return d;
}

static struct lab_drm *drm_get(struct device *dev)
{
	struct lab_drm *d, *found = NULL;

	mutex_lock(&drms_lock);
	list_for_each_entry(d, &drms, node)
		if (d->drm->dev == dev)
			found = d;
	if (!found)
		found = drm_new(dev);
	if (!IS_ERR(found))
		found->users++;
	mutex_unlock(&drms_lock);
	return found;
}

static void drm_put(struct lab_drm *d)
{
	mutex_lock(&drms_lock);
	if (!--d->users) {
		list_del(&d->node);
		drm_dev_put(d->drm);
		kfree(d);
	}
	mutex_unlock(&drms_lock);
}

static void va_link(struct drm_gpuva *va, struct drm_gpuvm_bo *vm_bo)
{
	dma_resv_lock(va->gem.obj->resv, NULL);
	drm_gpuva_link(va, vm_bo);
	dma_resv_unlock(va->gem.obj->resv);
}

static void va_free(struct drm_gpuva *va)
{
	struct drm_gem_object *obj = va->gem.obj;

	drm_gem_object_get(obj);
	dma_resv_lock(obj->resv, NULL);
	drm_gpuva_unlink(va);
	dma_resv_unlock(obj->resv);
	drm_gem_object_put(obj);
	kfree(va);
}

static void vm_destroy(struct drm_gpuvm *base)
{
	struct lab_vm *vm = container_of(base, struct lab_vm, base);
	struct lab_drm *d = vm->d;

	kfree(vm);
	drm_put(d);
}

/* For a part that an unmap leaves over; drm_gpuva_remap() fills it. */
static struct drm_gpuva *va_rest(const struct drm_gpuva_op_map *op)
{
	return op ? kzalloc(sizeof(struct drm_gpuva), GFP_KERNEL) : NULL;
}

static int step_remap(struct drm_gpuva_op *op, void *priv)
{
	struct drm_gpuva *old = op->remap.unmap->va;
	struct drm_gpuva *prev = va_rest(op->remap.prev);
	struct drm_gpuva *next = va_rest(op->remap.next);
	struct unmap_job *job = priv;
	u64 start, bytes;

	if ((op->remap.prev && !prev) || (op->remap.next && !next)) {
		kfree(prev);
		kfree(next);
		return -ENOMEM;
	}
	drm_gpuva_op_remap_to_unmap_range(&op->remap, &start, &bytes);
	drm_gpuva_remap(prev, next, &op->remap);
	if (prev)
		va_link(prev, old->vm_bo);
	if (next)
		va_link(next, old->vm_bo);
	va_free(old);
	job->bytes += bytes;
	return 0;
}

static int step_unmap(struct drm_gpuva_op *op, void *priv)
{
	struct drm_gpuva *va = op->unmap.va;
	struct unmap_job *job = priv;

	job->bytes += va->va.range;
	drm_gpuva_unmap(&op->unmap);
	va_free(va);
	return 0;
}

static int step_map(struct drm_gpuva_op *op, void *priv)
{
	return -EOPNOTSUPP;
}

static const struct drm_gpuvm_ops vm_base_ops = {
	.vm_free = vm_destroy,
	.sm_step_map = step_map,
	.sm_step_remap = step_remap,
	.sm_step_unmap = step_unmap,
};

static void *vm_create(struct device *dev)
{
	struct lab_vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL);
	struct drm_gem_object *resv;

	if (!vm)
		return ERR_PTR(-ENOMEM);
	vm->d = drm_get(dev);
	if (IS_ERR(vm->d)) {
		void *err = ERR_CAST(vm->d);

		kfree(vm);
		return err;
	}
	resv = drm_gpuvm_resv_object_alloc(vm->d->drm);
	if (!resv) {
		drm_put(vm->d);
		kfree(vm);
		return ERR_PTR(-ENOMEM);
	}
	drm_gpuvm_init(&vm->base, "dmabuf_lab", 0, vm->d->drm, resv, VM_START, VM_RANGE, 0, 0,
		       &vm_base_ops);
	drm_gem_object_put(resv);
	return vm;
}

static int vm_unmap(void *priv, u64 va, u64 size, u64 *unmapped)
{
	struct unmap_job job = {};
	struct lab_vm *vm = priv;
	int ret = drm_gpuvm_sm_unmap(&vm->base, &job, va, size);

	*unmapped = job.bytes;
	return ret;
}

static void vm_free(void *priv)
{
	struct lab_vm *vm = priv;
	u64 unmapped;

	vm_unmap(vm, VM_START, VM_RANGE, &unmapped);
	drm_gpuvm_put(&vm->base);
}

/* The VM's object for an attachment, with a reference; a new one at first. */
static struct drm_gem_object *vm_bo_of(struct lab_vm *vm, struct dma_buf_attachment *attach, u32 nr)
{
	struct drm_gpuva *va;
	struct lab_bo *bo;

	drm_gpuvm_for_each_va(va, &vm->base) {
		if (!va->gem.obj || container_of(va->gem.obj, struct lab_bo, base)->attachment != nr)
			continue;
		drm_gem_object_get(va->gem.obj);
		return va->gem.obj;
	}
	bo = kzalloc(sizeof(*bo), GFP_KERNEL);
	if (!bo)
		return NULL;
	bo->base.funcs = &bo_funcs;
	bo->attachment = nr;
	drm_gem_private_object_init(vm->d->drm, &bo->base, attach->dmabuf->size);
	bo->base.import_attach = attach;
	return &bo->base;
}

static int vm_map_obj(struct lab_vm *vm, struct drm_gpuva *va, struct drm_gem_object *obj)
{
	struct drm_gpuvm_bo *vm_bo = drm_gpuvm_bo_create(&vm->base, obj);
	int ret;

	if (!vm_bo)
		return -ENOMEM;
	ret = drm_gpuva_insert(&vm->base, va);
	if (!ret)
		va_link(va, vm_bo);
	dma_resv_lock(obj->resv, NULL);
	drm_gpuvm_bo_put(vm_bo);
	dma_resv_unlock(obj->resv);
	return ret;
}

static int vm_map(void *priv, struct dma_buf_attachment *attach, u32 nr, u64 addr, u64 offset,
		  u64 size)
{
	struct drm_gem_object *obj;
	struct lab_vm *vm = priv;
	struct drm_gpuva *va;
	int ret;

	if (!drm_gpuvm_range_valid(&vm->base, addr, size))
		return -EINVAL;
	va = kzalloc(sizeof(*va), GFP_KERNEL);
	if (!va)
		return -ENOMEM;
	obj = vm_bo_of(vm, attach, nr);
	if (!obj) {
		kfree(va);
		return -ENOMEM;
	}
	va->va.addr = addr;
	va->va.range = size;
	va->gem.obj = obj;
	va->gem.offset = offset;
	ret = vm_map_obj(vm, va, obj);
	drm_gem_object_put(obj);
	if (ret)
		kfree(va);
	return ret;
}

static const struct lab_vm_ops vm_ops = {
	.owner = THIS_MODULE,
	.create = vm_create,
	.free = vm_free,
	.map = vm_map,
	.unmap = vm_unmap,
};

static int __init vm_init(void)
{
	return lab_vm_register(&vm_ops);
}

static void __exit vm_exit(void)
{
	lab_vm_unregister(&vm_ops);
}

module_init(vm_init);
module_exit(vm_exit);
MODULE_DESCRIPTION("drm_gpuvm contexts for the dma-buf lab driver");
MODULE_LICENSE("GPL");
