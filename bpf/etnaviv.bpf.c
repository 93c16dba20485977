/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * etnaviv: an MMU context for each open file (one for all on GPUs with MMUv1). Objects are mapped
 * whole, when a submit needs them, from DMA addresses (sg_dma_address(),
 * drivers/gpu/drm/etnaviv/etnaviv_mmu.c), and reaped when the address space is full. It is made
 * when the device is opened; it belongs to whoever maps in it first.
 */

static inline void of_etnaviv(struct about *a, struct etnaviv_iommu_context *context)
{
	struct etnaviv_iommu_global *global = READ(context, global);

	a->vm = (u64)context;
	a->dev = global ? READ(global, dev) : NULL;
	a->provider = PROVIDER_ETNAVIV;
}

/* (context, object, memory_base, mapping, address) */
static inline int on_etnaviv_map_exit(struct call *c)
{
	struct etnaviv_gem_object *bo = (void *)c->arg[1];
	struct etnaviv_vram_mapping *mapping = (void *)c->arg[3];
	struct drm_gem_object *obj = (void *)INSIDE(bo, base);
	struct about a = old_vm();

	of_etnaviv(&a, (void *)c->arg[0]);
	range_mapped(&a, obj, READ(mapping, iova), READ(obj, size), 0, c->ret);
	return 0;
}

static inline void etnaviv_unmapped(u64 context, struct etnaviv_vram_mapping *mapping)
{
	struct etnaviv_gem_object *bo = READ(mapping, object);
	struct drm_gem_object *obj = (void *)INSIDE(bo, base);

	/* Without a context it was reaped before. */
	if (bo && context && READ(mapping, context))
		range_unmapped(context, PROVIDER_ETNAVIV, obj, READ(mapping, iova),
			       READ(obj, size));
}

/* (context, mapping) */
static inline int on_etnaviv_unmap_entry(struct call *c)
{
	etnaviv_unmapped(c->arg[0], (void *)c->arg[1]);
	return 0;
}

static inline int on_etnaviv_reap_entry(struct call *c)
{
	struct etnaviv_vram_mapping *mapping = (void *)c->arg[0];

	etnaviv_unmapped((u64)READ(mapping, context), mapping);
	return 0;
}

static inline int on_etnaviv_init_exit(struct call *c)
{
	struct about a = opened_vm();

	if (!c->ret || IS_ERR(c->ret))
		return 0;
	of_etnaviv(&a, (void *)c->ret);
	vm_id(&a);
	return 0;
}

/* The last reference. */
static inline int on_etnaviv_put_entry(struct call *c)
{
	struct etnaviv_iommu_context *context = (void *)c->arg[0];

	if (READ(context, refcount) == 1)
		end_vm(c->arg[0], PROVIDER_ETNAVIV);
	return 0;
}
