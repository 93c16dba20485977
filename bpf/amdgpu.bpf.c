/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * amdgpu: mappings of a buffer object (bo_va) in a VM. A VM is made when the device is opened, by
 * whoever opens it; it belongs to whoever maps in it first. Page tables are filled from DMA
 * addresses (ttm_tt.dma_address).
 */

#define AMDGPU_PAGE_SHIFT 12	/* AMDGPU_GPU_PAGE_SHIFT: the unit of mapping->start and ->last */
#define AMDGPU_MAPPINGS 64	/* looked through of one object in one VM */

static inline void of_amdgpu(struct about *a, struct amdgpu_device *adev, struct amdgpu_vm *vm)
{
	a->vm = (u64)vm;
	a->dev = READ(adev, dev);
	a->provider = PROVIDER_AMDGPU;
	a->client = READ(vm, pasid);
}

static inline struct drm_gem_object *amdgpu_object(struct amdgpu_bo_va *bo_va)
{
	struct amdgpu_bo *bo = READ(bo_va, base_bo);

	/* A partially resident range has none. */
	return bo ? (void *)(INSIDE(bo, tbo) + OFFSET(struct ttm_buffer_object, base)) : NULL;
}

static inline void amdgpu_mapped(struct call *c)
{
	struct amdgpu_bo_va *bo_va = (void *)c->arg[1];
	struct about a = old_vm();

	of_amdgpu(&a, (void *)c->arg[0], READ(bo_va, base_vm));
	range_mapped(&a, amdgpu_object(bo_va), c->arg[2], c->arg[4], c->arg[3], c->ret);
}

/* (adev, bo_va, address, offset, size, flags) */
static inline int on_amdgpu_map_exit(struct call *c)
{
	amdgpu_mapped(c);
	return 0;
}

/* The same, after whatever is in its way was taken out. */
static inline int on_amdgpu_replace_entry(struct call *c)
{
	struct amdgpu_bo_va *bo_va = (void *)c->arg[1];

	range_unmapped((u64)READ(bo_va, base_vm), PROVIDER_AMDGPU, NULL, c->arg[2], c->arg[4]);
	return 0;
}

static inline int on_amdgpu_replace_exit(struct call *c)
{
	amdgpu_mapped(c);
	return 0;
}

/* (adev, vm, address, size): mappings are split as need be. */
static inline int on_amdgpu_clear_entry(struct call *c)
{
	range_unmapped(c->arg[1], PROVIDER_AMDGPU, NULL, c->arg[2], c->arg[3]);
	return 0;
}

/* Tell the end of the mappings in a list that begin at an address, or of all for ~0. */
static inline void amdgpu_unmap_listed(struct amdgpu_bo_va *bo_va, u64 head, u64 address)
{
	struct drm_gem_object *obj = amdgpu_object(bo_va);
	u64 vm = (u64)READ(bo_va, base_vm), at = 0;
	int i;

	if (!is_dma_buf(obj))
		return;
	bpf_probe_read_kernel(&at, sizeof(at), (void *)head);
	for (i = 0; i < AMDGPU_MAPPINGS; i++) {
		struct amdgpu_bo_va_mapping *mapping;
		u64 start, last;

		KEEP_LOOP(i);
		if (!at || at == head)
			return;
		mapping = (void *)(at - OFFSET(struct amdgpu_bo_va_mapping, list));
		start = READ(mapping, start);
		last = READ(mapping, last);
		if (address == ~0ull || start == address >> AMDGPU_PAGE_SHIFT)
			range_unmapped(vm, PROVIDER_AMDGPU, obj, start << AMDGPU_PAGE_SHIFT,
				       (last - start + 1) << AMDGPU_PAGE_SHIFT);
		at = READ(mapping, list);
	}
}

/* (adev, bo_va, address) */
static inline int on_amdgpu_unmap_entry(struct call *c)
{
	struct amdgpu_bo_va *bo_va = (void *)c->arg[1];

	amdgpu_unmap_listed(bo_va, (u64)INSIDE(bo_va, valids), c->arg[2]);
	amdgpu_unmap_listed(bo_va, (u64)INSIDE(bo_va, invalids), c->arg[2]);
	return 0;
}

/* (adev, bo_va): the object leaves the VM, whatever is still mapped of it. */
static inline int on_amdgpu_bo_del_entry(struct call *c)
{
	struct amdgpu_bo_va *bo_va = (void *)c->arg[1];

	amdgpu_unmap_listed(bo_va, (u64)INSIDE(bo_va, valids), ~0ull);
	amdgpu_unmap_listed(bo_va, (u64)INSIDE(bo_va, invalids), ~0ull);
	return 0;
}

static inline int on_amdgpu_vm_init_exit(struct call *c)
{
	struct about a = opened_vm();

	if ((s32)c->ret)
		return 0;
	of_amdgpu(&a, (void *)c->arg[0], (void *)c->arg[1]);
	vm_id(&a);
	return 0;
}

static inline int on_amdgpu_vm_fini_entry(struct call *c)
{
	end_vm(c->arg[1], PROVIDER_AMDGPU);
	return 0;
}
