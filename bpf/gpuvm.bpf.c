/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * drm_gpuvm: GPU VMs of the drivers with VM_BIND. A range belongs to a buffer through its GEM
 * object: imported (import_attach) or exported here (dma_buf).
 */

#define PROVIDER_GPUVM 2	/* contexts.PROVIDERS in dmabuf_tool/model */

BPF_TABLE("hash", u64, u32, gpuvms, 16384);

/* Domains and VMs are contexts both: their ids come from one counter. */
static inline u32 gpuvm_id(struct drm_gpuvm *vm, u32 flags)
{
	u64 key = (u64)vm;
	u32 *known = gpuvms.lookup(&key), id, device;
	struct drm_device *drm;
	struct event *e;

	if (known)
		return *known;
	id = next_id(ID_DOMAIN);
	if (gpuvms.update(&key, &id)) {
		count(ST_UNTRACKED, 1);
		return 0;
	}
	drm = READ(vm, drm);
	device = drm ? device_id(READ(drm, dev)) : 0;
	e = begin(EV_CONTEXT);
	if (!e)
		return id;
	e->flags = flags;
	e->device = device;
	e->l2.context = id;
	e->l2.provider = PROVIDER_GPUVM;
	submit(e);
	return id;
}

static inline void of_object(struct event *e, struct drm_gem_object *obj)
{
	struct dma_buf_attachment *at = READ(obj, import_attach);
	u64 key = (u64)at;

	if (at) {
		struct attachment *a = attachments.lookup(&key);

		if (a) {
			e->buffer = a->buffer;
			e->attachment = a->id;
			e->device = a->device;
		}
		return;
	}
	key = (u64)READ(obj, dma_buf);
	if (key) {
		struct buffer *b = buffers.lookup(&key);

		if (b)
			e->buffer = b->id;
	}
}

static inline void send_gpuva(int kind, struct drm_gpuvm *vm, struct drm_gpuva *va, int result)
{
	u32 context = gpuvm_id(vm, EF_PREEXISTING);
	struct drm_gem_object *obj = READ(va, gem_obj);
	struct event *e = begin(kind);

	if (!e)
		return;
	e->result = result;
	if (obj)
		of_object(e, obj);
	e->l2.context = context;
	e->l2.provider = PROVIDER_GPUVM;
	e->l2.address = READ(va, va_addr);
	e->l2.size = READ(va, va_range);
	e->l2.offset = READ(va, gem_offset);
	submit(e);
}

static inline int on_gpuva_insert_exit(struct call *c)
{
	send_gpuva(EV_LEVEL2_MAP, (void *)c->arg[0], (void *)c->arg[1], c->ret);
	return 0;
}

static inline int on_gpuva_remove_entry(struct call *c)
{
	struct drm_gpuva *va = (void *)c->arg[0];

	send_gpuva(EV_LEVEL2_UNMAP, READ(va, vm), va, 0);
	return 0;
}

static inline int on_gpuvm_init_exit(struct call *c)
{
	gpuvm_id((void *)c->arg[0], 0);
	return 0;
}

/* The last reference: drm_gpuvm_free() is inlined. */
static inline int on_gpuvm_put_entry(struct call *c)
{
	struct drm_gpuvm *vm = (void *)c->arg[0];
	u64 key = c->arg[0];
	u32 *id = gpuvms.lookup(&key);
	struct event *e;

	if (!id || READ(vm, kref) != 1)
		return 0;
	e = begin(EV_CONTEXT_FREE);
	if (e) {
		e->l2.context = *id;
		e->l2.provider = PROVIDER_GPUVM;
		submit(e);
	}
	gpuvms.delete(&key);
	return 0;
}
