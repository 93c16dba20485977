/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nouveau without VM_BIND: a client's one VM, in which every object it opens has a range. A
 * nouveau_vma does not name its object; nouveau_vma_new() is given it, and calls
 * nouveau_vma_map() when the object has memory already. VM_BIND goes through drm_gpuvm.
 */

BPF_TABLE("hash", u64, u64, nouveau_objects, 65536);	/* nouveau_vma -> GEM object */
BPF_TABLE("lru_hash", u32, u64, nouveau_making, 1024);	/* thread -> object, in nouveau_vma_new() */

static inline void of_nouveau(struct about *a, struct nouveau_vmm *vmm)
{
	struct nouveau_cli *cli = READ(vmm, cli);
	struct nouveau_drm *nv = cli ? READ(cli, drm) : NULL;
	struct drm_device *drm = nv ? READ(nv, dev) : NULL;

	a->vm = (u64)vmm;
	a->dev = drm ? READ(drm, dev) : NULL;
	a->provider = PROVIDER_NOUVEAU;
}

static inline struct drm_gem_object *nouveau_object(struct nouveau_vma *vma)
{
	u64 key = (u64)vma, *known = nouveau_objects.lookup(&key);
	u32 tid = bpf_get_current_pid_tgid();

	if (!known)
		known = nouveau_making.lookup(&tid);
	return known ? (void *)*known : NULL;
}

/* (nvbo, vmm, &vma) */
static inline int on_nouveau_new_entry(struct call *c)
{
	struct nouveau_bo *nvbo = (void *)c->arg[0];
	u64 obj = (u64)&nvbo->bo + (u64)&((struct ttm_buffer_object *)0)->base;
	u32 tid = bpf_get_current_pid_tgid();

	nouveau_making.update(&tid, &obj);
	return 0;
}

static inline int on_nouveau_new_exit(struct call *c)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 vma = 0, *obj = nouveau_making.lookup(&tid);

	if (!obj)
		return 0;
	bpf_probe_read_kernel(&vma, sizeof(vma), (void *)c->arg[2]);
	if (!(s32)c->ret && vma && is_dma_buf((void *)*obj) && nouveau_objects.update(&vma, obj))
		count(ST_UNTRACKED, 1);
	nouveau_making.delete(&tid);
	return 0;
}

static inline int on_nouveau_map_exit(struct call *c)
{
	struct nouveau_vma *vma = (void *)c->arg[0];
	struct drm_gem_object *obj = nouveau_object(vma);
	struct about a = { .flags = EF_PREEXISTING };

	if (!obj)
		return 0;
	of_nouveau(&a, READ(vma, vmm));
	range_mapped(&a, obj, READ(vma, addr), READ(obj, size), 0, c->ret);
	return 0;
}

static inline void nouveau_unmapped(struct nouveau_vma *vma)
{
	struct drm_gem_object *obj = nouveau_object(vma);

	if (obj && READ(vma, mem))
		range_unmapped((u64)READ(vma, vmm), PROVIDER_NOUVEAU, obj, READ(vma, addr),
			       READ(obj, size));
}

static inline int on_nouveau_unmap_entry(struct call *c)
{
	nouveau_unmapped((void *)c->arg[0]);
	return 0;
}

/* (&vma): the last reference gives the addresses back, mapped or not. */
static inline int on_nouveau_del_entry(struct call *c)
{
	u64 vma = 0;

	bpf_probe_read_kernel(&vma, sizeof(vma), (void *)c->arg[0]);
	if (!vma || READ((struct nouveau_vma *)vma, refs) > 1)
		return 0;
	nouveau_unmapped((void *)vma);
	nouveau_objects.delete(&vma);
	return 0;
}

/* (cli, oclass, vmm): when the device is opened, by whoever opens it. */
static inline int on_nouveau_vmm_init_exit(struct call *c)
{
	struct nouveau_cli *cli = (void *)c->arg[0];
	struct about a = { .no_owner = 1 };

	if ((s32)c->ret)
		return 0;
	of_nouveau(&a, (void *)c->arg[2]);
	name_vm(vm_id(&a), (void *)&cli->name);
	return 0;
}

static inline int on_nouveau_vmm_fini_entry(struct call *c)
{
	end_vm(c->arg[0], PROVIDER_NOUVEAU);
	return 0;
}
