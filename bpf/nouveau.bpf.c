/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nouveau without VM_BIND: a client's one VM, in which every object it opens has a range. A
 * nouveau_vma does not name its object; nouveau_vma_new() is given it, and maps it when it has
 * memory already (nouveau_vma_map(), inlined there in 6.1). VM_BIND goes through drm_gpuvm.
 */

BPF_TABLE("hash", u64, u64, nouveau_objects, 65536);	/* nouveau_vma -> GEM object */

/* What a thread is in nouveau_vma_new() for; `told`: its map was seen, which may be inlined. */
struct nouveau_making {
	u64 obj;
	u64 told;
};
BPF_TABLE("lru_hash", u32, struct nouveau_making, nouveau_threads, 1024);

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

	return known ? (void *)*known : NULL;
}

static inline void nouveau_mapped(struct nouveau_vma *vma, struct drm_gem_object *obj, int result)
{
	struct about a = old_vm();

	of_nouveau(&a, READ(vma, vmm));
	range_mapped(&a, obj, READ(vma, addr), READ(obj, size), 0, result);
}

/* (nvbo, vmm, &vma) */
static inline int on_nouveau_new_entry(struct call *c)
{
	struct nouveau_bo *nvbo = (void *)c->arg[0];
	u32 tid = bpf_get_current_pid_tgid();
	struct nouveau_making making = {};

	making.obj = (u64)INSIDE(nvbo, bo) + OFFSET(struct ttm_buffer_object, base);
	nouveau_threads.update(&tid, &making);
	return 0;
}

/* Another user of a range that was there (refs) maps nothing. */
static inline int on_nouveau_new_exit(struct call *c)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct nouveau_making *making = nouveau_threads.lookup(&tid);
	struct drm_gem_object *obj;
	u64 vma = 0, object, told;

	if (!making)
		return 0;
	object = making->obj;
	told = making->told;
	nouveau_threads.delete(&tid);
	bpf_probe_read_kernel(&vma, sizeof(vma), (void *)c->arg[2]);
	obj = (void *)object;
	if ((s32)c->ret || !vma || !is_dma_buf(obj))
		return 0;
	if (nouveau_objects.update(&vma, &object))
		count(ST_UNTRACKED, 1);
	if (!told && READ((struct nouveau_vma *)vma, refs) == 1 &&
	    READ((struct nouveau_vma *)vma, mem))
		nouveau_mapped((void *)vma, obj, 0);
	return 0;
}

static inline int on_nouveau_map_exit(struct call *c)
{
	struct nouveau_vma *vma = (void *)c->arg[0];
	struct drm_gem_object *obj = nouveau_object(vma);
	u32 tid = bpf_get_current_pid_tgid();
	struct nouveau_making *making;

	if (!obj) {
		making = nouveau_threads.lookup(&tid);
		if (!making)
			return 0;
		making->told = 1;
		obj = (void *)making->obj;
	}
	nouveau_mapped(vma, obj, c->ret);
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
	struct about a = opened_vm();

	if ((s32)c->ret)
		return 0;
	of_nouveau(&a, (void *)c->arg[2]);
	name_vm(vm_id(&a), (void *)INSIDE(cli, name));
	return 0;
}

static inline int on_nouveau_vmm_fini_entry(struct call *c)
{
	end_vm(c->arg[0], PROVIDER_NOUVEAU);
	return 0;
}
