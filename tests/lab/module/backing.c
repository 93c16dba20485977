// SPDX-License-Identifier: GPL-2.0
/*
 * The pages of own buffers, in physical runs of a chosen length. Mappings hold a reference, so
 * that pages stay while a device may reach them, wherever the buffer has moved.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "lab.h"

static void backing_free(struct kref *ref)
{
	struct lab_backing *k = container_of(ref, struct lab_backing, ref);
	unsigned int i;

	for (i = 0; i < k->npages; i++)
		__free_page(k->pages[i]);
	kvfree(k);
}

void lab_backing_put(struct lab_backing *k)
{
	kref_put(&k->ref, backing_free);
}

/*
 * One run of n pages, physically contiguous. With a gap, twice as much is taken and the second
 * half given back, so that no two runs ever lie next to each other. Memory comes aligned to its
 * power of two; a run that is not to be leaves out the first pages, as many as `skip`.
 */
static int backing_run(struct lab_backing *k, unsigned int n, bool gap, unsigned int skip,
		       gfp_t gfp)
{
	unsigned int order = order_base_2(n + skip) + (gap ? 1 : 0);
	struct page *page;
	unsigned int i;

	if (order > 10)
		return -E2BIG;
	page = alloc_pages(gfp | (order ? __GFP_NOWARN : 0), order);
	if (!page)
		return -ENOMEM;
	split_page(page, order);
	for (i = 0; i < 1u << order; i++) {
		if (i >= skip && i < skip + n)
			k->pages[k->npages++] = page + i;
		else
			__free_page(page + i);
	}
	return 0;
}

struct lab_backing *lab_backing_alloc(u64 size, u32 run_pages, u32 flags)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | (flags & LAB_F_DMA32 ? GFP_DMA32 : 0);
	unsigned int npages = size >> PAGE_SHIFT;
	struct lab_backing *k;
	int ret = 0;

	k = kvzalloc(struct_size(k, pages, npages), GFP_KERNEL);
	if (!k)
		return ERR_PTR(-ENOMEM);
	kref_init(&k->ref);
	k->run_pages = run_pages ? run_pages : npages;
	while (!ret && k->npages < npages) {
		unsigned int n = min(k->run_pages, npages - k->npages);

		ret = backing_run(k, n, run_pages, flags & LAB_F_UNALIGNED ? 1 : 0, gfp);
		k->nruns++;
	}
	if (ret) {
		lab_backing_put(k);
		return ERR_PTR(ret);
	}
	return k;
}
