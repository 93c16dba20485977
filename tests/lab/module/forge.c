// SPDX-License-Identifier: GPL-2.0
/*
 * Tables that are wrong on purpose. The DMA API's own table stays honest, for the unmap; the
 * importer gets another one whose DMA side is bent as the shape says.
 */
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/pci.h>

#include "lab.h"

static struct scatterlist *last_entry(struct sg_table *sgt)
{
	struct scatterlist *sg, *last = sgt->sgl;
	unsigned int i;

	for_each_sg(sgt->sgl, sg, sgt->nents, i)
		last = sg;
	return last;
}

static u64 dma_total(struct sg_table *sgt)
{
	struct scatterlist *sg;
	unsigned int i;
	u64 sum = 0;

	for_each_sg(sgt->sgl, sg, sgt->nents, i)
		sum += sg_dma_len(sg);
	return sum;
}

static void set_dma(struct scatterlist *sg, dma_addr_t addr, unsigned int len)
{
	sg_dma_address(sg) = addr;
	sg_dma_len(sg) = len;
}

/* A copy of the real table, entries and all. */
static int clone(struct lab_xmap *x)
{
	struct scatterlist *from = x->real.sgl, *to;
	unsigned int i;
	int ret = sg_alloc_table(&x->out, x->real.orig_nents, GFP_KERNEL);

	if (ret)
		return ret;
	x->out_entries = x->real.orig_nents;
	for_each_sg(x->out.sgl, to, x->out_entries, i) {
		sg_set_page(to, sg_page(from), from->length, from->offset);
		set_dma(to, sg_dma_address(from), sg_dma_len(from));
		from = sg_next(from);
	}
	x->out.nents = x->real.nents;
	return 0;
}

/* One entry a page, pages 2i and 2i+1 swapped, so that nothing merges. */
static int shatter(struct lab_xmap *x)
{
	unsigned int n = x->backing->npages, i = 0;
	struct sg_dma_page_iter it;
	struct scatterlist *sg, *prev = NULL;
	int ret = sg_alloc_table(&x->out, n, GFP_KERNEL);

	if (ret)
		return ret;
	x->out_entries = n;
	sg = x->out.sgl;
	for_each_sgtable_dma_page(&x->real, &it, 0) {
		if (!sg)
			break;
		sg_set_page(sg, x->backing->pages[i], PAGE_SIZE, 0);
		set_dma(sg, sg_page_iter_dma_address(&it), PAGE_SIZE);
		if (i & 1) {
			swap(sg_dma_address(prev), sg_dma_address(sg));
			sg_set_page(prev, x->backing->pages[i], PAGE_SIZE, 0);
			sg_set_page(sg, x->backing->pages[i - 1], PAGE_SIZE, 0);
		}
		prev = sg;
		sg = sg_next(sg);
		i++;
	}
	x->out.nents = i;
	return 0;
}

static int cross_boundary(struct scatterlist *sg, struct device *dev)
{
	u64 mask = dma_get_seg_boundary(dev);
	unsigned int len = sg_dma_len(sg);

	if (mask > U32_MAX)
		mask = U32_MAX;
	set_dma(sg, mask + 1 - ALIGN(len / 2, 512), len);
	return 0;
}

static int beyond_mask(struct scatterlist *sg, struct device *dev)
{
	u64 mask = dma_get_mask(dev);

	if (mask == U64_MAX)
		return -EINVAL;
	set_dma(sg, mask + 1, sg_dma_len(sg));
	return 0;
}

static void drop_page(struct sg_table *sgt)
{
	struct scatterlist *sg = last_entry(sgt);

	if (sg_dma_len(sg) > PAGE_SIZE)
		set_dma(sg, sg_dma_address(sg), sg_dma_len(sg) - PAGE_SIZE);
	else if (sgt->nents > 1)
		sgt->nents--;
	else
		set_dma(sg, sg_dma_address(sg), sg_dma_len(sg) / 2);
}

static void untranslated(struct sg_table *sgt)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(sgt->sgl, sg, sgt->orig_nents, i)
		set_dma(sg, sg_phys(sg), sg->length);
	sgt->nents = sgt->orig_nents;
}

/* What an exporter of device memory hands out that never asked the DMA API. */
static int own_bar(struct sg_table *sgt, struct device *dev)
{
	u64 size = 0;
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(sgt->sgl, sg, sgt->orig_nents, i)
		size += sg->length;
	if (!dev_is_pci(dev) || size > pci_resource_len(to_pci_dev(dev), 0))
		return -EINVAL;
	set_dma(sgt->sgl, pci_resource_start(to_pci_dev(dev), 0), size);
	sgt->nents = 1;
	sgt->orig_nents = 0;
	return 0;
}

static int bend(struct lab_xmap *x, u32 shape, struct device *dev)
{
	struct scatterlist *first = x->out.sgl;

	switch (shape) {
	case LAB_SHAPE_LONG:
		set_dma(first, sg_dma_address(first), dma_total(&x->out));
		x->out.nents = 1;
		return 0;
	case LAB_SHAPE_BOUNDARY:
		return cross_boundary(first, dev);
	case LAB_SHAPE_BEYOND_MASK:
		return beyond_mask(last_entry(&x->out), dev);
	case LAB_SHAPE_MISALIGNED:
		set_dma(first, sg_dma_address(first) + 512, sg_dma_len(first) - 512);
		return 0;
	case LAB_SHAPE_SHORT:
		drop_page(&x->out);
		return 0;
	case LAB_SHAPE_PAGELESS:
		x->out.orig_nents = 0;
		return 0;
	case LAB_SHAPE_UNTRANSLATED:
		untranslated(&x->out);
		return 0;
	case LAB_SHAPE_BAR:
		return own_bar(&x->out, dev);
	default:
		return -EINVAL;
	}
}

int lab_forge(struct lab_xmap *x, u32 shape, struct device *dev)
{
	int ret;

	if (shape == LAB_SHAPE_HONEST) {
		x->out = x->real;
		return 0;
	}
	if (shape == LAB_SHAPE_MANY_RUNS)
		return shatter(x);
	ret = clone(x);
	return ret ? ret : bend(x, shape, dev);
}

void lab_unforge(struct lab_xmap *x)
{
	if (!x->out_entries)
		return;
	x->out.orig_nents = x->out_entries;
	sg_free_table(&x->out);
	x->out_entries = 0;
}
