/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * panfrost: an address space for each open file, in which every object the file has is mapped
 * once, whole. Page tables are written with io-pgtable from DMA addresses (sg_dma_address(),
 * drivers/gpu/drm/panfrost/panfrost_mmu.c). It is made when the device is opened, by whoever opens
 * it; it belongs to whoever maps in it first.
 */

#define PANFROST_PAGE_SHIFT 12	/* of mapping->mmnode: in panfrost's pages of 4 KiB */

static inline void of_panfrost(struct about *a, struct panfrost_mmu *mmu)
{
	struct panfrost_device *pfdev = READ(mmu, pfdev);

	a->vm = (u64)mmu;
	a->dev = pfdev ? READ(pfdev, dev) : NULL;
	a->provider = PROVIDER_PANFROST;
}

static inline struct drm_gem_object *panfrost_object(struct panfrost_gem_mapping *mapping)
{
	struct panfrost_gem_object *obj = READ(mapping, obj);

	return obj ? (void *)(INSIDE(obj, base) + OFFSET(struct drm_gem_shmem_object, base))
		   : NULL;
}

static inline int on_panfrost_map_exit(struct call *c)
{
	struct panfrost_gem_mapping *mapping = (void *)c->arg[0];
	struct about a = old_vm();

	of_panfrost(&a, READ(mapping, mmu));
	range_mapped(&a, panfrost_object(mapping),
		     READ(mapping, mmnode_start) << PANFROST_PAGE_SHIFT,
		     READ(mapping, mmnode_size) << PANFROST_PAGE_SHIFT, 0, c->ret);
	return 0;
}

static inline int on_panfrost_unmap_entry(struct call *c)
{
	struct panfrost_gem_mapping *mapping = (void *)c->arg[0];

	range_unmapped((u64)READ(mapping, mmu), PROVIDER_PANFROST, panfrost_object(mapping),
		       READ(mapping, mmnode_start) << PANFROST_PAGE_SHIFT,
		       READ(mapping, mmnode_size) << PANFROST_PAGE_SHIFT);
	return 0;
}

static inline int on_panfrost_create_exit(struct call *c)
{
	struct about a = opened_vm();

	if (!c->ret || IS_ERR(c->ret))
		return 0;
	of_panfrost(&a, (void *)c->ret);
	vm_id(&a);
	return 0;
}

/* The last reference. */
static inline int on_panfrost_put_entry(struct call *c)
{
	struct panfrost_mmu *mmu = (void *)c->arg[0];

	if (READ(mmu, refcount) == 1)
		end_vm(c->arg[0], PROVIDER_PANFROST);
	return 0;
}
