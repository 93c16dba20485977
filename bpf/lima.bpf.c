/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lima: an address space for each open file, in which an object is mapped once, whole, however
 * often it is opened (lima_bo_va.ref_count), from DMA addresses (sg_page_iter_dma_address(),
 * drivers/gpu/drm/lima/lima_vm.c). It is made when the device is opened; it belongs to whoever
 * maps in it first.
 */

#define LIMA_VMS 64	/* looked through of one object */

static inline void of_lima(struct about *a, struct lima_vm *vm)
{
	struct lima_device *dev = READ(vm, dev);

	a->vm = (u64)vm;
	a->dev = dev ? READ(dev, dev) : NULL;
	a->provider = PROVIDER_LIMA;
}

static inline struct drm_gem_object *lima_object(struct lima_bo *bo)
{
	return (void *)(INSIDE(bo, base) + OFFSET(struct drm_gem_shmem_object, base));
}

/* An object's place in a VM. */
static inline struct lima_bo_va *lima_find(struct lima_bo *bo, u64 vm)
{
	u64 head = (u64)INSIDE(bo, va), at = READ(bo, va);
	int i;

	for (i = 0; i < LIMA_VMS; i++) {
		struct lima_bo_va *bo_va;

		KEEP_LOOP(i);
		if (!at || at == head)
			return NULL;
		bo_va = (void *)(at - OFFSET(struct lima_bo_va, list));
		if ((u64)READ(bo_va, vm) == vm)
			return bo_va;
		at = READ(bo_va, list);
	}
	return NULL;
}

/* (vm, bo, create) */
static inline int on_lima_add_exit(struct call *c)
{
	struct lima_bo *bo = (void *)c->arg[1];
	struct about a = old_vm();
	struct lima_bo_va *bo_va;

	if ((s32)c->ret || !is_dma_buf(lima_object(bo)))
		return 0;
	bo_va = lima_find(bo, c->arg[0]);
	if (!bo_va || READ(bo_va, ref_count) != 1)
		return 0;
	of_lima(&a, (void *)c->arg[0]);
	range_mapped(&a, lima_object(bo), READ(bo_va, node_start), READ(bo_va, node_size), 0, 0);
	return 0;
}

/* (vm, bo) */
static inline int on_lima_del_entry(struct call *c)
{
	struct lima_bo *bo = (void *)c->arg[1];
	struct lima_bo_va *bo_va = lima_find(bo, c->arg[0]);

	if (bo_va && READ(bo_va, ref_count) == 1)
		range_unmapped(c->arg[0], PROVIDER_LIMA, lima_object(bo), READ(bo_va, node_start),
			       READ(bo_va, node_size));
	return 0;
}

static inline int on_lima_create_exit(struct call *c)
{
	struct about a = opened_vm();

	if (!c->ret || IS_ERR(c->ret))
		return 0;
	of_lima(&a, (void *)c->ret);
	vm_id(&a);
	return 0;
}

/* (&vm->refcount) */
static inline int on_lima_release_entry(struct call *c)
{
	end_vm(c->arg[0] - OFFSET(struct lima_vm, refcount), PROVIDER_LIMA);
	return 0;
}
