// SPDX-License-Identifier: GPL-2.0
#include "lab.h"
int lab_ctx_create(struct lab_client *c, struct lab_req *q) { return -EOPNOTSUPP; }
int lab_ctx_free(struct lab_req *q) { return -EOPNOTSUPP; }
int lab_ctx_attach(struct lab_req *q) { return -EOPNOTSUPP; }
int lab_ctx_detach(struct lab_req *q) { return -EOPNOTSUPP; }
int lab_l2_map(struct lab_req *q) { return -EOPNOTSUPP; }
int lab_l2_unmap(struct lab_req *q) { return -EOPNOTSUPP; }
void lab_ctxs_destroy(struct list_head *list) { }
void lab_ctxs_destroy_all(struct lab_dev *only) { }
bool lab_ctx_dma_ok(struct lab_ctx *ctx, u64 addr, u64 size) { return true; }
