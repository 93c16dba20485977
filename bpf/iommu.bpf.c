/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The IOMMU core: what a dma-buf's map enters into the device's DMA domain, and everything in
 * private (unmanaged) domains. iommu_map() runs for every network packet and disk request too:
 * that traffic is counted and dropped here.
 */

#define DOMAIN_UNMANAGED 1	/* __IOMMU_DOMAIN_PAGING alone: a driver's own domain */

/* The frame of the dma-buf call this belongs to, if it does. An interrupt that maps for another
 * device on top of this thread is told apart by its domain. */
static inline struct frame *frame_for(struct iommu_domain *domain)
{
	struct frame *frame = frame_of();

	if (!frame || domain_of((struct device *)frame->device_ptr) != domain)
		return NULL;
	return frame;
}

static inline int send_iommu(struct call *c, int kind, u64 paddr, u64 size, u64 done, int result)
{
	struct iommu_domain *domain = (void *)c->arg[0];
	struct frame *frame = frame_for(domain);
	u32 type = READ(domain, type), id;
	struct event *e;

	if (!frame && type != DOMAIN_UNMANAGED) {
		count(ST_DROPPED_IOMMU, 1);
		return 0;
	}
	id = domain_id(domain, ~0u);
	if (frame && !frame->mapping &&
	    (frame->kind == FRAME_MAP || frame->kind == FRAME_ATTACH))
		frame->mapping = next_id(ID_MAPPING);
	e = begin(kind);
	if (!e)
		return 0;
	e->result = result;
	e->domain = id;
	if (frame) {
		e->flags = EF_INSIDE;
		e->buffer = frame->buffer;
		e->attachment = frame->attachment;
		e->mapping = frame->mapping;
		e->device = frame->device;
	}
	e->iommu.iova = c->arg[1];
	e->iommu.paddr = paddr;
	e->iommu.size = size;
	e->iommu.done = done;
	e->iommu.type = type;
	if (kind == EV_IOMMU_MAP)
		e->iommu.prot = c->arg[4];
	submit(e);
	return 0;
}

static inline int on_iommu_map_exit(struct call *c)
{
	s32 result = c->ret;

	return send_iommu(c, EV_IOMMU_MAP, c->arg[2], c->arg[3], result ? 0 : c->arg[3], result);
}

static inline int on_iommu_unmap_exit(struct call *c)
{
	return send_iommu(c, EV_IOMMU_UNMAP, 0, c->arg[2], c->ret, 0);
}

static inline int on_domain_attach_exit(struct call *c)
{
	struct iommu_domain *domain = (void *)c->arg[0];
	struct device *dev = (void *)c->arg[1];
	struct iommu_group *group = READ(dev, iommu_group);
	u32 group_id = group ? READ(group, id) : ~0u;
	u32 device = device_id(dev, false);
	u32 old = group ? domain_id(READ(group, domain), group_id) : 0;
	u32 id = domain_id(domain, group_id);
	struct event *e = begin(EV_DOMAIN_ATTACH);

	if (!e)
		return 0;
	e->result = c->ret;
	e->device = device;
	e->domain = id;
	e->dom.type = READ(domain, type);
	e->dom.group = group_id;
	e->dom.old_domain = old;
	submit(e);
	return 0;
}

static inline int on_domain_free_entry(struct call *c)
{
	u64 key = c->arg[0];
	u32 *id = domains.lookup(&key);
	struct event *e;

	if (!id)
		return 0;
	e = begin(EV_DOMAIN_FREE);
	if (e) {
		e->domain = *id;
		submit(e);
	}
	domains.delete(&key);
	return 0;
}

/* swiotlb:swiotlb_bounced (dev, dev_addr, size, ...): the device cannot reach the page. */
static inline int on_bounce_entry(struct call *c)
{
	struct frame *frame = frame_of();
	struct event *e;

	if (!frame || frame->device_ptr != c->arg[0])
		return 0;
	if (!frame->mapping && (frame->kind == FRAME_MAP || frame->kind == FRAME_ATTACH))
		frame->mapping = next_id(ID_MAPPING);
	e = begin(EV_BOUNCE);
	if (!e)
		return 0;
	e->flags = EF_INSIDE;
	e->buffer = frame->buffer;
	e->attachment = frame->attachment;
	e->mapping = frame->mapping;
	e->device = frame->device;
	e->iommu.iova = c->arg[1];
	e->iommu.size = c->arg[2];
	submit(e);
	return 0;
}
