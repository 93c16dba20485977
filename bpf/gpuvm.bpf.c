/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * drm_gpuvm: GPU VMs of the drivers with VM_BIND. Objects that are no dma-bufs are told too: a
 * range that is split is removed and its rest inserted again.
 */

#define NAME_MSM 0x006d736d	/* "msm": four bytes as they lie in memory */

/*
 * msm, which goes this way from 6.17, is told by its name: it alone fills its page tables from
 * sg_phys() and not from DMA addresses (drivers/gpu/drm/msm/msm_iommu.c).
 */
static inline void of_gpuvm(struct about *a, struct drm_gpuvm *vm)
{
	struct drm_device *drm = READ(vm, drm);
	struct drm_driver *driver = drm ? READ(drm, driver) : NULL;
	const char *name = driver ? READ(driver, name) : NULL;
	u32 letters = 0;

	bpf_probe_read_kernel(&letters, sizeof(letters), name);
	a->vm = (u64)vm;
	a->dev = drm ? READ(drm, dev) : NULL;
	a->provider = letters == NAME_MSM ? PROVIDER_MSM : PROVIDER_GPUVM;
}

/* A provider that tells all objects is in TELL_ALL (model/contexts.py); msm does not. */
static inline bool tells(struct about *a, struct drm_gem_object *obj)
{
	return a->provider == PROVIDER_GPUVM || is_dma_buf(obj);
}

static inline int on_gpuva_insert_exit(struct call *c)
{
	struct about a = old_vm();
	struct drm_gpuva *va = (void *)c->arg[1];
	struct drm_gem_object *obj = READ(va, gem_obj);
	struct event *e;
	u32 context;

	of_gpuvm(&a, (void *)c->arg[0]);
	if (!tells(&a, obj))
		return 0;
	context = vm_id(&a);
	e = begin_range(EV_LEVEL2_MAP, context, a.provider, READ(va, va_addr), READ(va, va_range));
	if (!e)
		return 0;
	e->result = c->ret;
	e->l2.offset = READ(va, gem_offset);
	if (obj)
		of_object(e, obj);
	submit(e);
	return 0;
}

static inline int on_gpuva_remove_entry(struct call *c)
{
	struct about a = old_vm();
	struct drm_gpuva *va = (void *)c->arg[0];
	struct drm_gem_object *obj = READ(va, gem_obj);
	u64 key = (u64)READ(va, vm);
	struct vm *known = vms.lookup(&key);
	struct event *e;

	if (!known)
		return 0;
	of_gpuvm(&a, (void *)key);
	if (!tells(&a, obj))
		return 0;
	e = begin_range(EV_LEVEL2_UNMAP, known->id, a.provider, READ(va, va_addr),
			READ(va, va_range));
	if (!e)
		return 0;
	if (obj)
		of_object(e, obj);
	submit(e);
	return 0;
}

static inline int on_gpuvm_init_exit(struct call *c)
{
	struct drm_gpuvm *vm = (void *)c->arg[0];
	struct about a = new_vm();

	of_gpuvm(&a, vm);
	name_vm(vm_id(&a), READ(vm, name));
	return 0;
}

/* The last reference: drm_gpuvm_free() is inlined. */
static inline int on_gpuvm_put_entry(struct call *c)
{
	struct drm_gpuvm *vm = (void *)c->arg[0];

	if (c->arg[0] && READ(vm, kref) == 1)
		end_vm(c->arg[0], PROVIDER_GPUVM);
	return 0;
}
