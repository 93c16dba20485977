/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i915: what is bound in ppGTTs, from its tracepoints, which all versions have; they are raised
 * when page tables are about to be written. The global GTT is no context and is left out. Page
 * tables are filled from DMA addresses (i915_vma_resource.bi.pages, sg_dma_address()).
 */

static inline bool of_i915(struct about *a, struct i915_address_space *vm)
{
	if (READ_BIT(i915_address_space, vm, is_ggtt))
		return false;
	a->vm = (u64)vm;
	a->dev = READ(vm, dma);
	a->provider = PROVIDER_I915;
	if (HAVE(i915_address_space, fpriv) && HAVE(drm_file, client_id)) {
		struct drm_i915_file_private *fpriv = READ(vm, fpriv);
		struct drm_file *file = fpriv ? READ(fpriv, file) : NULL;

		if (file)
			a->client = READ(file, client_id);
	}
	return true;
}

static inline u64 i915_address(struct i915_vma *vma)
{
	return READ(vma, node_start) + (HAVE(i915_vma, guard) ? READ(vma, guard) : 0);
}

static inline int on_i915_bind_entry(struct call *c)
{
	struct i915_vma *vma = (void *)c->arg[0];
	struct about a = old_vm();
	struct drm_i915_gem_object *obj = READ(vma, obj);

	if (obj && of_i915(&a, READ(vma, vm)))
		range_mapped(&a, (void *)INSIDE(obj, base), i915_address(vma), READ(vma, size), 0, 0);
	return 0;
}

static inline int on_i915_unbind_entry(struct call *c)
{
	struct i915_vma *vma = (void *)c->arg[0];
	struct drm_i915_gem_object *obj = READ(vma, obj);

	if (obj)
		range_unmapped((u64)READ(vma, vm), PROVIDER_I915, (void *)INSIDE(obj, base),
			       i915_address(vma), READ(vma, size));
	return 0;
}

static inline int on_i915_ppgtt_create_entry(struct call *c)
{
	struct about a = new_vm();

	if (of_i915(&a, (void *)c->arg[0]))
		vm_id(&a);
	return 0;
}

static inline int on_i915_ppgtt_release_entry(struct call *c)
{
	end_vm(c->arg[0], PROVIDER_I915);
	return 0;
}
