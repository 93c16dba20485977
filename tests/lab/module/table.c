// SPDX-License-Identifier: GPL-2.0
/*
 * The driver's own two-level table, as it is at the moment of reading: debugfs "table", a JSON
 * object a line. First the level-1 mappings, then the ranges of contexts, in no order. It is the
 * truth that the tool's table is held against; whoever wants it whole lets nothing run meanwhile.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "context.h"

static void show_map(struct seq_file *m, struct lab_map *map)
{
	struct lab_att *a = map->att;

	seq_printf(m, "{\"map\":%u,\"attachment\":%u,\"device\":\"%s\",\"ino\":%lu,\"size\":%zu",
		   map->nr, a->nr, dev_name(a->ldev->dev), file_inode(a->dmabuf->file)->i_ino,
		   a->dmabuf->size);
	seq_printf(m, ",\"dma_addr\":%llu,\"nents\":%u,\"translated\":%s}\n",
		   (u64)sg_dma_address(map->sgt->sgl), map->sgt->nents,
		   map->translated ? "true" : "false");
}

static void show_context(struct seq_file *m, struct lab_ctx *x)
{
	struct lab_l2 *l;

	list_for_each_entry(l, &x->ranges, node) {
		bool pages = l->source == LAB_SOURCE_PAGES;

		seq_printf(m, "{\"context\":%u,\"kind\":\"%s\",\"device\":\"%s\",\"ino\":%llu,\"map\":%u",
			   x->nr, x->kind == LAB_KIND_DOMAIN ? "domain" : "gpuvm",
			   dev_name(x->ldev->dev), l->ino, l->map);
		seq_printf(m, ",\"va\":%llu,\"offset\":%llu,\"bytes\":%llu,\"source\":\"%s\"",
			   l->va, l->offset, l->size, pages ? "pages" : "dma-address");
		seq_printf(m, ",\"dma_addr\":%llu,\"nested\":%s}\n", l->dma_addr,
			   l->translated && !pages ? "true" : "false");
	}
}

static int table_show(struct seq_file *m, void *v)
{
	struct lab_map *map;
	struct lab_ctx *x;
	u32 nr;

	for (nr = lab_map_after(0); nr; nr = lab_map_after(nr)) {
		map = lab_map_lock(nr);
		if (!map)
			continue;
		show_map(m, map);
		lab_map_unlock(map->att);
	}
	for (nr = lab_ctx_after(0); nr; nr = lab_ctx_after(nr)) {
		x = lab_ctx_lock(nr);
		if (!x)
			continue;
		show_context(m, x);
		lab_ctx_unlock(x);
	}
	return 0;
}

DEFINE_SHOW_ATTRIBUTE(table);

void lab_table_init(struct dentry *dir)
{
	debugfs_create_file("table", 0400, dir, NULL, &table_fops);
}
