/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * v3d: one address space for all, which lives as long as the device and is nobody's. Objects are
 * mapped whole, from DMA addresses (sg_dma_address(), drivers/gpu/drm/v3d/v3d_mmu.c).
 */

#define V3D_PAGE_SHIFT 12	/* V3D_MMU_PAGE_SHIFT: the unit of bo->node */

static inline struct drm_gem_object *v3d_object(struct v3d_bo *bo)
{
	return (void *)(INSIDE(bo, base) + OFFSET(struct drm_gem_shmem_object, base));
}

static inline int on_v3d_map_exit(struct call *c)
{
	struct about a = old_vm();
	struct v3d_bo *bo = (void *)c->arg[0];
	struct drm_gem_object *obj = v3d_object(bo);
	struct drm_device *drm = READ(obj, dev);

	a.no_owner = 1;
	a.provider = PROVIDER_V3D;
	a.vm = (u64)drm;
	a.dev = drm ? READ(drm, dev) : NULL;
	range_mapped(&a, obj, READ(bo, node_start) << V3D_PAGE_SHIFT,
		     READ(bo, node_size) << V3D_PAGE_SHIFT, 0, 0);
	return 0;
}

static inline int on_v3d_unmap_entry(struct call *c)
{
	struct v3d_bo *bo = (void *)c->arg[0];
	struct drm_gem_object *obj = v3d_object(bo);

	range_unmapped((u64)READ(obj, dev), PROVIDER_V3D, obj,
		       READ(bo, node_start) << V3D_PAGE_SHIFT,
		       READ(bo, node_size) << V3D_PAGE_SHIFT);
	return 0;
}
