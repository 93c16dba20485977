/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel differences this driver meets between 6.1 and 7.2, each with the release
 * that made it.
 */
#ifndef LAB_COMPAT_H
#define LAB_COMPAT_H

#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/version.h>

/* Linux 6.13, cdd30ebb1b9f ("module: Convert symbol namespace to string literal"). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define LAB_IMPORT_NS(ns)	MODULE_IMPORT_NS(#ns)
#else
#define LAB_IMPORT_NS(ns)	MODULE_IMPORT_NS(ns)
#endif

/* cache_sgt_mapping was there up to 6.14; the core no longer caches tables after that. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define LAB_HAS_CACHE_SGT	1
#else
#define LAB_HAS_CACHE_SGT	0
#endif

/* Linux 7.1, 95308225e5ba: move_notify is called invalidate_mappings. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 1, 0)
#define lab_move_notify_op	invalidate_mappings
#define lab_move_notify		dma_buf_invalidate_mappings
#else
#define lab_move_notify_op	move_notify
#define lab_move_notify		dma_buf_move_notify
#endif

/* Linux 6.3, 1369459b2e21 ("iommu: Add a gfp parameter to iommu_map()"). */
static inline int lab_iommu_map(struct iommu_domain *domain, unsigned long iova,
				phys_addr_t paddr, size_t size, int prot)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	return iommu_map(domain, iova, paddr, size, prot, GFP_KERNEL);
#else
	return iommu_map(domain, iova, paddr, size, prot);
#endif
}

static inline ssize_t lab_iommu_map_sg(struct iommu_domain *domain, unsigned long iova,
				       struct scatterlist *sg, unsigned int nents, int prot)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	return iommu_map_sg(domain, iova, sg, nents, prot, GFP_KERNEL);
#else
	return iommu_map_sg(domain, iova, sg, nents, prot);
#endif
}

/*
 * Linux 6.11 ("iommu: Add iommu_paging_domain_alloc() interface"); iommu_domain_alloc() went in
 * 6.13, f6440fcc9c7b. by_bus: by the older one where there are both.
 */
static inline struct iommu_domain *lab_domain_alloc(struct device *dev, bool by_bus)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	if (by_bus || LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)) {
		struct iommu_domain *domain = iommu_domain_alloc(dev->bus);

		return domain ? domain : ERR_PTR(-ENODEV);
	}
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	return iommu_paging_domain_alloc(dev);
#endif
}

#endif
