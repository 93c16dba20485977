/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * msm up to 6.16: per-process page tables (msm_iommu_pagetable), written with io-pgtable and told
 * by nobody else. What is mapped is the scatterlist that is passed: of an imported buffer it is
 * the one its level-1 mapping gave, and tells the buffer. The driver reads its pages (sg_phys()),
 * never its DMA addresses (drivers/gpu/drm/msm/msm_iommu.c). Address spaces of the display and of
 * the kernel are private IOMMU domains, which the IOMMU's hooks see. From 6.17 msm's VMs are
 * drm_gpuvm's.
 */

static inline void of_msm(struct about *a, struct msm_mmu *mmu)
{
	a->vm = (u64)mmu;
	a->dev = READ(mmu, dev);
	a->provider = PROVIDER_MSM;
}

/* (mmu, address, sgt, size, prot) */
static inline int on_msm_map_exit(struct call *c)
{
	struct about a = old_vm();
	struct mapping *m = mapping_of(c->arg[2]);
	struct event *e;
	u32 context;

	if (!m)
		return 0;
	of_msm(&a, (void *)c->arg[0]);
	context = vm_id(&a);
	e = begin_range(EV_LEVEL2_MAP, context, PROVIDER_MSM, c->arg[1], c->arg[3]);
	if (!e)
		return 0;
	e->result = c->ret;
	e->mapping = m->id;
	e->attachment = m->attachment;
	submit(e);
	return 0;
}

/* (mmu, address, size) */
static inline int on_msm_unmap_entry(struct call *c)
{
	range_unmapped(c->arg[0], PROVIDER_MSM, NULL, c->arg[1], c->arg[2]);
	return 0;
}

/* In the ioctl by which a process gets its own address space. */
static inline int on_msm_create_exit(struct call *c)
{
	struct about a = new_vm();

	if (!c->ret || IS_ERR(c->ret))
		return 0;
	of_msm(&a, (void *)c->ret);
	vm_id(&a);
	return 0;
}

static inline int on_msm_destroy_entry(struct call *c)
{
	end_vm(c->arg[0], PROVIDER_MSM);
	return 0;
}
