/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Identity: kernel pointers are reused and must not leak, so every object gets an id at first
 * sight, kept here until its end, and is described then.
 */

struct buffer {
	u32 id;
	u32 preexisting;
	u64 name;		/* the dma_buf's name pointer when it was last sent */
};

struct attachment {
	u32 id;
	u32 buffer;
	u32 device;
	u16 preexisting;
	u16 unmapped;		/* at least once: that one's caller was told */
};

BPF_TABLE("hash", u64, struct buffer, buffers, 65536);
BPF_TABLE("hash", u64, struct attachment, attachments, 65536);
BPF_TABLE("hash", u64, u32, devices, 8192);
BPF_TABLE("hash", u64, u32, domains, 16384);

/*
 * Attachments and domains that every map asks for have a place in an array as well, by their
 * address, if no other has it: finding one in a hash table takes 130 instructions more. A place
 * is written by who claims it and emptied by who ends the object, never shared.
 */
#define PLACE_BITS 12
struct place {
	u64 key;
	u64 claims;
	struct attachment of;	/* a domain: its id */
};
BPF_TABLE("array", u32, struct place, places, 1 << PLACE_BITS);

static inline u32 hash_of(u64 address, int bits)
{
	return number(address) * 0x9e3779b97f4a7c15 >> (64 - bits);	/* Fibonacci */
}

static inline struct place *place_of(u64 key)
{
	u32 at = hash_of(key, PLACE_BITS);

	return places.lookup(&at);
}

static inline void keep_place(u64 key, struct attachment *of)
{
	struct place *place = place_of(key);

	if (!place || (place->key != key && fetch_add(&place->claims, 1))) {
		if (place)
			fetch_add(&place->claims, -1);
		return;
	}
	place->of = *of;
	place->key = key;
}

static inline void empty_place(u64 key)
{
	struct place *place = place_of(key);

	if (!place || place->key != key)
		return;
	place->key = 0;
	fetch_add(&place->claims, -1);
}

static inline struct attachment *attachment_of(u64 key)
{
	struct place *place = place_of(key);

	return place && place->key == key ? &place->of : attachments.lookup(&key);
}

static inline void keep_attachment(u64 key, struct attachment *fresh)
{
	if (attachments.update(&key, fresh))
		count(ST_UNTRACKED, 1);
	else
		keep_place(key, fresh);
}

static inline void drop_attachment(u64 key)
{
	empty_place(key);
	attachments.delete(&key);
}

#define IOMMU_DOMAIN_DMA_API 2	/* __IOMMU_DOMAIN_DMA_API, include/linux/iommu.h */

static inline struct iommu_domain *domain_of(struct device *dev)
{
	struct iommu_group *group = READ(dev, iommu_group);

	return group ? READ(group, domain) : NULL;
}

/* A domain that has no place, and is described when it is seen for the first time. */
SUBPROGRAM(u32, describe_domain, struct iommu_domain *domain; u32 group; u32 flags;)
{
	struct iommu_domain *domain = a->domain;
	struct attachment fresh = {};
	u64 key = (u64)domain;
	u32 *known, id;
	struct event *e;

	known = domains.lookup(&key);
	if (known)
		return *known;
	id = next_id(ID_DOMAIN);
	if (domains.update(&key, &id)) {
		count(ST_UNTRACKED, 1);
		return 0;
	}
	fresh.id = id;
	keep_place(key, &fresh);
	e = begin(EV_DOMAIN);
	if (!e)
		return id;
	e->flags = a->flags;
	e->domain = id;
	e->dom.group = a->group;
	e->dom.type = READ(domain, type);
	e->dom.pgsize_bitmap = READ(domain, pgsize_bitmap);
	e->dom.aperture_start = READ(domain, geometry_aperture_start);
	e->dom.aperture_end = READ(domain, geometry_aperture_end);
	submit(e);
	return id;
}

/* The id of a domain; `flags` are for its description, 0: it is made now. */
static inline u32 see_domain(struct iommu_domain *domain, u32 group, u32 flags)
{
	struct place *place = place_of((u64)domain);

	if (!domain)
		return 0;
	if (place && place->key == (u64)domain)
		return place->of.id;
	return describe_domain(&(struct describe_domain){ domain, group, flags });
}

/* The id of an IOMMU domain that is in use. */
static inline u32 domain_id(struct iommu_domain *domain, u32 group)
{
	return see_domain(domain, group, EF_PREEXISTING);
}

static inline int is_coherent(struct device *dev)
{
#ifdef __TARGET_ARCH_x86
	return 1;	/* no such flag: always coherent */
#else
	/* From 7.2 a bit of device.flags[]; a bit field before. */
	if (FACT(DEV_FLAG_DMA_COHERENT))
		return !!(READ(dev, flags) & FACT(DEV_FLAG_DMA_COHERENT));
	return READ_BIT(device, dev, dma_coherent);
#endif
}

/* The id of a device; at first sight its names go ahead. */
SUBPROGRAM(u32, see_device, struct device *dev;)
{
	struct device *dev = a->dev;
	struct device_driver *driver;
	struct bus_type *bus;
	const char *names[3];	/* in the order of EV_NAME_DEVICE, _DRIVER, _BUS */
	u64 key = (u64)dev;
	u32 *known, id;
	int i;

	if (!dev)
		return 0;
	known = devices.lookup(&key);
	if (known)
		return *known;
	id = next_id(ID_DEVICE);
	if (devices.update(&key, &id)) {
		count(ST_UNTRACKED, 1);
		return 0;
	}
	driver = READ(dev, driver);
	bus = READ(dev, bus);
	names[0] = READ(dev, kobj_name);
	names[1] = driver ? READ(driver, name) : NULL;
	names[2] = bus ? READ(bus, name) : NULL;
	for (i = 0; i < 3; i++) {
		KEEP_LOOP(i);
		send_name(EV_NAME_DEVICE + i, 0, id, names[i]);
	}
	return id;
}

static inline u32 device_id(struct device *dev)
{
	return see_device(&(struct see_device){ dev });
}

/* A device with its limits, as they are now: a driver may change them until it attaches. */
SUBPROGRAM(u32, describe_device, struct device *dev;)
{
	struct device *dev = a->dev;
	struct device_dma_parameters *parms;
	struct iommu_domain *domain = NULL;
	struct iommu_group *group;
	u32 id = device_id(dev), group_id = ~0u, domain_no = 0;
	struct event *e;
	u64 *mask;

	if (!id)
		return 0;
	group = READ(dev, iommu_group);
	if (group) {
		group_id = READ(group, id);
		domain = READ(group, domain);
		domain_no = domain_id(domain, group_id);
	}
	e = begin(EV_DEVICE);
	if (!e)
		return id;
	e->device = id;
	e->attachment = group_id;
	e->domain = domain_no;
	mask = READ(dev, dma_mask);
	if (mask) {
		e->flags |= EF_HAS_MASK;
		bpf_probe_read_kernel(&e->dev.dma_mask, sizeof(u64), mask);
	}
	e->dev.coherent_dma_mask = READ(dev, coherent_dma_mask);
	e->dev.bus_dma_limit = READ(dev, bus_dma_limit);
	parms = READ(dev, dma_parms);
	if (parms) {
		e->flags |= EF_HAS_PARMS;
		e->dev.max_segment_size = READ(parms, max_segment_size);
		e->dev.min_align_mask = READ(parms, min_align_mask);
		e->dev.segment_boundary_mask = READ(parms, segment_boundary_mask);
	}
	if (is_coherent(dev))
		e->flags |= EF_COHERENT;
	if (domain && (READ(domain, type) & IOMMU_DOMAIN_DMA_API))
		e->flags |= EF_TRANSLATED;
	submit(e);
	return id;
}

static inline u64 inode_number(struct dma_buf *d)
{
	struct file *file = READ(d, file);
	struct inode *inode = file ? READ(file, f_inode) : NULL;

	return inode ? READ(inode, i_ino) : 0;
}

static inline void describe_buffer(struct event *e, struct dma_buf *d)
{
	const char *exporter = READ(d, exp_name);

	e->buf.size = READ(d, size);
	e->buf.ino = inode_number(d);
	if (bpf_probe_read_kernel_str(e->buf.exporter, sizeof(e->buf.exporter), exporter) ==
	    sizeof(e->buf.exporter))
		e->flags |= EF_CUT;
}

/* A buffer. One that was never seen exported is older than the trace. */
SUBPROGRAM(struct buffer *, see_buffer, struct dma_buf *d;)
{
	struct dma_buf *d = a->d;
	u64 key = (u64)d;
	struct buffer *known = buffers.lookup(&key);
	struct buffer fresh = { .preexisting = 1 };
	struct event *e;

	if (known)
		return known;
	fresh.id = next_id(ID_BUFFER);
	if (buffers.update(&key, &fresh)) {
		count(ST_UNTRACKED, 1);
		return NULL;
	}
	e = begin(EV_BUFFER);
	if (e) {
		e->buffer = fresh.id;
		e->flags = EF_PREEXISTING;
		describe_buffer(e, d);
		submit(e);
	}
	return buffers.lookup(&key);
}

static inline struct buffer *buffer_of(struct dma_buf *d)
{
	return see_buffer(&(struct see_buffer){ d });
}
