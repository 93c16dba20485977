/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IOMMU domains: births, ends, and which device or group is switched to which. */

static inline int on_domain_attach_exit(struct call *c)
{
	struct iommu_domain *domain = (void *)c->arg[0];
	struct device *dev = (void *)c->arg[1];
	struct iommu_group *group = READ(dev, iommu_group);
	u32 group_id = group ? READ(group, id) : ~0u;
	u32 device = device_id(dev);
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

/* A domain's birth, by whoever asks for one. What an unseen end may have left is forgotten. */
static inline int on_domain_alloc_exit(struct call *c)
{
	u64 key = c->ret;

	if (!key || IS_ERR(key))
		return 0;
	empty_place(key);
	domains.delete(&key);
	see_domain((struct iommu_domain *)key, ~0u, 0);
	return 0;
}

static inline int on_domain_alloc_bus_exit(struct call *c)
{
	return on_domain_alloc_exit(c);
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
	empty_place(key);
	domains.delete(&key);
	return 0;
}
