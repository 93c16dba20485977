/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the level-2 providers share: the ids of their VMs, which buffer a GEM object is of, and
 * how a range is told. A range belongs to a buffer through its GEM object: imported
 * (import_attach) or exported by this driver (dma_buf).
 *
 * Whoever works for a process in a kernel worker names no owner; user space keeps the one it
 * knows (model/contexts.py).
 */

enum provider {		/* PROVIDERS in model/contexts.py */
	PROVIDER_GPUVM = 2,
	PROVIDER_I915 = 3,
	PROVIDER_AMDGPU = 4,
	PROVIDER_NOUVEAU = 5,
	PROVIDER_MSM = 6,
	PROVIDER_PANFROST = 7,
	PROVIDER_ETNAVIV = 8,
	PROVIDER_LIMA = 9,
	PROVIDER_V3D = 10,
};

struct vm {
	u32 id;
	u32 client;
};

BPF_TABLE("hash", u64, struct vm, vms, 16384);

/* What a handler says of a VM. */
struct about {
	u64 vm;			/* its address in the kernel: the key */
	struct device *dev;
	u32 provider;
	u32 client;		/* DRM client id, asid or pasid; 0: not known (yet) */
	u32 flags;		/* EF_PREEXISTING: not its birth */
	u32 no_owner;		/* whoever runs here is not (known to be) the owner */
};

/* Members one by one: a constant to copy from would be data, which bcc does not relocate. */
static inline struct about new_vm(void)
{
	struct about a;

	__builtin_memset(&a, 0, sizeof(a));
	return a;
}

static inline struct about old_vm(void)
{
	struct about a = new_vm();

	a.flags = EF_PREEXISTING;
	return a;
}

/* Made when a device is opened: that may be a service that passes it on. */
static inline struct about opened_vm(void)
{
	struct about a = new_vm();

	a.no_owner = 1;
	return a;
}

/* VMs and IOMMU domains are contexts both: their ids come from one counter. Told at birth or
 * first sight, and once more when the client becomes known. */
static inline u32 vm_id(struct about *a)
{
	u64 key = a->vm;
	struct vm *known = vms.lookup(&key), fresh = {};
	u32 flags = a->flags, device;
	struct event *e;

	if (known && (!a->client || known->client == a->client))
		return known->id;
	if (known) {
		known->client = a->client;
		fresh.id = known->id;
		flags |= EF_PREEXISTING;
	} else {
		fresh.id = next_id(ID_DOMAIN);
		fresh.client = a->client;
		if (vms.update(&key, &fresh)) {
			count(ST_UNTRACKED, 1);
			return 0;
		}
	}
	device = device_id(a->dev);
	e = begin(EV_CONTEXT);
	if (!e)
		return fresh.id;
	if (a->no_owner) {
		e->tgid = 0;
		e->tid = 0;
	}
	e->flags = flags;
	e->device = device;
	e->l2.context = fresh.id;
	e->l2.provider = a->provider;
	e->l2.client = a->client;
	submit(e);
	return fresh.id;
}

static inline void name_vm(u32 id, const char *name)
{
	struct event *e;

	if (!id || !name)
		return;
	e = begin(EV_NAME_CONTEXT);
	if (!e)
		return;
	e->domain = id;
	if (bpf_probe_read_kernel_str(e->text, sizeof(e->text), name) == sizeof(e->text))
		e->flags = EF_CUT;
	submit(e);
}

static inline void end_vm(u64 key, u32 provider)
{
	struct vm *known = vms.lookup(&key);
	struct event *e;

	if (!known)
		return;
	e = begin(EV_CONTEXT_FREE);
	if (e) {
		e->l2.context = known->id;
		e->l2.provider = provider;
		submit(e);
	}
	vms.delete(&key);
}

static inline bool is_dma_buf(struct drm_gem_object *obj)
{
	return obj && (READ(obj, import_attach) || READ(obj, dma_buf));
}

static inline void of_object(struct event *e, struct drm_gem_object *obj)
{
	struct dma_buf_attachment *at = READ(obj, import_attach);
	u64 key;

	if (at) {
		struct attachment *a = attachment_of((u64)at);

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

static inline struct event *begin_range(int kind, u32 context, u32 provider, u64 address, u64 size)
{
	struct event *e = begin(kind);

	if (!e)
		return NULL;
	e->l2.context = context;
	e->l2.provider = provider;
	e->l2.address = address;
	e->l2.size = size;
	return e;
}

/* A range of an object that is a dma-buf; a driver's other objects are not told. */
static inline void range_mapped(struct about *a, struct drm_gem_object *obj, u64 address, u64 size,
				u64 offset, int result)
{
	struct event *e;
	u32 context;

	if (!is_dma_buf(obj))
		return;
	context = vm_id(a);
	e = begin_range(EV_LEVEL2_MAP, context, a->provider, address, size);
	if (!e)
		return;
	e->result = result;
	e->l2.offset = offset;
	e->l2.client = a->client;
	of_object(e, obj);
	submit(e);
}

/* Nothing was seen mapped in a VM that is not known. Without an object: whatever is there. */
static inline void range_unmapped(u64 vm, u32 provider, struct drm_gem_object *obj, u64 address,
				  u64 size)
{
	struct vm *known = vms.lookup(&vm);
	struct event *e;

	if (!known || (obj && !is_dma_buf(obj)))
		return;
	e = begin_range(EV_LEVEL2_UNMAP, known->id, provider, address, size);
	if (!e)
		return;
	if (obj)
		of_object(e, obj);
	submit(e);
}
