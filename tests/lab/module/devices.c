// SPDX-License-Identifier: GPL-2.0
/*
 * The importing devices: a table with a slot per device, and the platform devices made on
 * command. These have no IOMMU and exactly the limits they were asked to have.
 */
#include <linux/delay.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/platform_device.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "lab.h"

static struct lab_dev *lab_devs[LAB_MAX_DEVICES];	/* under lab_lock */

int lab_dev_add(struct lab_dev *d)
{
	u32 nr;

	mutex_init(&d->lock);
	mutex_lock(&lab_lock);
	for (nr = 0; nr < LAB_MAX_DEVICES && lab_devs[nr]; nr++)
		;
	if (nr < LAB_MAX_DEVICES) {
		d->nr = nr;
		lab_devs[nr] = d;
	}
	mutex_unlock(&lab_lock);
	return nr < LAB_MAX_DEVICES ? 0 : -ENOSPC;
}

struct lab_dev *lab_dev_get(u32 nr)
{
	struct lab_dev *d = NULL;

	mutex_lock(&lab_lock);
	if (nr < LAB_MAX_DEVICES && lab_devs[nr] && !lab_devs[nr]->gone) {
		d = lab_devs[nr];
		d->users++;
	}
	mutex_unlock(&lab_lock);
	return d;
}

void lab_dev_put(struct lab_dev *d)
{
	mutex_lock(&lab_lock);
	d->users--;
	mutex_unlock(&lab_lock);
}

/* The device goes away, whoever uses it: undo all that is on it, then forget it. */
void lab_dev_del(struct lab_dev *d)
{
	struct lab_implicit i;
	bool busy;

	mutex_lock(&lab_lock);
	d->gone = true;
	mutex_unlock(&lab_lock);
	do {
		lab_implicit_begin(&i);
		lab_ctxs_destroy_all(d);
		lab_atts_destroy_all(d);
		lab_implicit_end(&i);
		mutex_lock(&lab_lock);
		busy = d->users;
		if (!busy)
			lab_devs[d->nr] = NULL;
		mutex_unlock(&lab_lock);
		if (busy)
			msleep(20);
	} while (busy);
}

int lab_dev_query(struct lab_req *q)
{
	struct lab_dev *d = lab_dev_get(q->device);

	if (!d)
		return -ENODEV;
	strscpy(q->name, dev_name(d->dev), sizeof(q->name));
	q->kind = d->kind;
	q->addr = dma_get_mask(d->dev);
	q->max_seg = dma_get_max_seg_size(d->dev);
	q->boundary = dma_get_seg_boundary(d->dev);
	q->min_align = dma_get_min_align_mask(d->dev);
	q->limit = d->dev->bus_dma_limit;
	q->count = d->users - 1;
	lab_dev_put(d);
	return 0;
}

static int platform_probe(struct platform_device *pdev)
{
	return 0;
}

static struct platform_driver lab_platform_driver = {
	.probe = platform_probe,
	.driver = {
		.name = "dmabuf_lab",
	},
};

/* arm64 can choose; x86 is coherent. Linux 7.2 made the flag a bit with accessors. */
static void set_coherent(struct device *dev, bool coherent)
{
#if defined(CONFIG_ARM64) && LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
	dev_assign_dma_coherent(dev, coherent);
#elif defined(CONFIG_ARM64)
	dev->dma_coherent = coherent;
#endif
}

static int platform_limits(struct device *dev, const struct lab_req *q)
{
	int ret = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(q->mask_bits));

	if (ret)
		return ret;
	dev->bus_dma_limit = q->limit;
	if (q->flags & LAB_F_NO_PARMS) {
		dev->dma_parms = NULL;
	} else {
		if (q->max_seg)
			dma_set_max_seg_size(dev, q->max_seg);
		if (q->boundary)
			dma_set_seg_boundary(dev, q->boundary);
		if (q->min_align)
			dma_set_min_align_mask(dev, q->min_align);
	}
	set_coherent(dev, q->flags & LAB_F_COHERENT);
	return 0;
}

/* 0, or all ones from bit 0 on. */
static bool is_mask(u64 mask)
{
	return !(mask & (mask + 1));
}

/* swiotlb has BUG_ON() for limits that are no masks, or that leave no room for a page. */
static bool limits_ok(const struct lab_req *q)
{
	if (q->mask_bits < 24 || q->mask_bits > 64)
		return false;
	if (!is_mask(q->boundary) || (q->boundary && q->boundary < PAGE_SIZE - 1))
		return false;
	if (q->max_seg && q->max_seg < PAGE_SIZE)
		return false;
	return is_mask(q->min_align) && q->min_align < SZ_64K;
}

int lab_platform_create(struct lab_req *q)
{
	struct lab_dev *d;
	int ret;

	if (!limits_ok(q))
		return -EINVAL;
	d = kzalloc(sizeof(*d), GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	d->kind = LAB_KIND_PLATFORM;
	d->pdev = platform_device_register_simple("dmabuf_lab", PLATFORM_DEVID_AUTO, NULL, 0);
	if (IS_ERR(d->pdev)) {
		ret = PTR_ERR(d->pdev);
		goto free;
	}
	d->dev = &d->pdev->dev;
	ret = platform_limits(d->dev, q);
	if (!ret)
		ret = lab_dev_add(d);
	if (ret)
		goto unregister;
	q->device = d->nr;
	strscpy(q->name, dev_name(d->dev), sizeof(q->name));
	return 0;
unregister:
	platform_device_unregister(d->pdev);
free:
	kfree(d);
	return ret;
}

static void platform_free(struct lab_dev *d)
{
	platform_device_unregister(d->pdev);
	kfree(d);
}

int lab_platform_destroy(u32 nr)
{
	struct lab_dev *d = NULL;
	int ret = 0;

	mutex_lock(&lab_lock);
	if (nr < LAB_MAX_DEVICES)
		d = lab_devs[nr];
	if (!d || d->kind != LAB_KIND_PLATFORM || d->gone)
		ret = -ENODEV;
	else if (d->users)
		ret = -EBUSY;
	else
		lab_devs[nr] = NULL;
	mutex_unlock(&lab_lock);
	if (!ret)
		platform_free(d);
	return ret;
}

void lab_platform_destroy_all(void)
{
	u32 nr;

	for (nr = 0; nr < LAB_MAX_DEVICES; nr++)
		lab_platform_destroy(nr);
}

int lab_platform_init(void)
{
	return platform_driver_register(&lab_platform_driver);
}

void lab_platform_exit(void)
{
	lab_platform_destroy_all();
	platform_driver_unregister(&lab_platform_driver);
}
