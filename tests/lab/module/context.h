/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What context.c and level2.c share.
 */
#ifndef LAB_CONTEXT_H
#define LAB_CONTEXT_H

#include "lab.h"

/* A mapped range. What it needs to be undone and named, and nothing that can go away. */
struct lab_l2 {
	struct list_head node;
	u64 va;
	u64 size;
	u64 offset;
	u64 ino;
	u64 buffer_size;
	u32 source;
	u32 attachment;
	u32 map;
	u64 dma_addr;		/* level 1 of the whole mapping */
	bool translated;
};

struct lab_ctx {
	struct kref ref;
	struct mutex lock;
	struct list_head node;		/* under lab_lock */
	struct list_head ranges;
	struct lab_dev *ldev;
	struct iommu_domain *domain;
	const struct lab_vm_ops *vm_ops;
	void *vm;
	u32 nr;
	u32 kind;
	bool attached;			/* under the device's lock */
	bool alive;
};

/* Locked and alive, its device locked too, or NULL. */
struct lab_ctx *lab_ctx_lock(u32 nr);
void lab_ctx_unlock(struct lab_ctx *x);
u32 lab_ctx_after(u32 nr);	/* the next number in use, 0 for none */
void lab_rec_ctx(struct lab_rec *r, struct lab_ctx *x);
void lab_l2_unmap_all(struct lab_ctx *x);

#endif
