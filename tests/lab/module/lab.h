/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the lab driver's files share.
 *
 * Locks, outermost first: lab_dev.lock, lab_ctx.lock, lab_att.lock, the buffer's reservation,
 * lab_lock. Callbacks under a reservation take lab_buf.lock, lab_lock and the log's spinlock.
 */
#ifndef LAB_H
#define LAB_H

#include <linux/dma-buf.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "compat.h"
#include "dmabuf_lab.h"

#define LAB_MAX_DEVICES	64
#define LAB_MAX_SIZE	(256ULL << 20)

struct dentry;
struct platform_device;
struct pci_dev;
struct xarray;

/* ---- log.c ---- */

enum lab_event {
	LAB_EV_EXPORT,
	LAB_EV_RELEASE,
	LAB_EV_MOVE,
	LAB_EV_MOVE_NOTIFY,
	LAB_EV_INVALIDATED,
	LAB_EV_CPU_BEGIN,
	LAB_EV_CPU_END,
	LAB_EV_ATTACH,
	LAB_EV_DETACH,
	LAB_EV_PIN,
	LAB_EV_UNPIN,
	LAB_EV_MAP,
	LAB_EV_UNMAP,
	LAB_EV_REJECT,
	LAB_EV_MAP_LOOP,
	LAB_EV_CB_ATTACH,
	LAB_EV_CB_DETACH,
	LAB_EV_CB_PIN,
	LAB_EV_CB_UNPIN,
	LAB_EV_CB_MAP,
	LAB_EV_CB_UNMAP,
	LAB_EV_CONTEXT_CREATE,
	LAB_EV_CONTEXT_FREE,
	LAB_EV_CONTEXT_ATTACH,
	LAB_EV_CONTEXT_DETACH,
	LAB_EV_L2_MAP,
	LAB_EV_L2_UNMAP,
	LAB_EV_EDU_DMA,
	LAB_EV_MARK,
	LAB_EV_COUNT
};

/* One line. lab_log_start() fills who and when, the caller what, lab_log_commit() the rest. */
struct lab_rec {
	u64 seq;
	u64 start_ns;
	u64 ts_ns;
	u64 ino;
	u64 size;
	u64 dma_addr;
	u64 dma_len;
	u64 dma_sum;
	u64 va;
	u64 offset;
	u64 bytes;
	enum lab_event event;
	int result;
	int direction;		/* -1: none */
	int source;		/* -1: none */
	u32 nents;
	u32 orig_nents;
	u32 attachment;
	u32 map;
	u32 context;
	u32 kind;
	u32 count;
	bool implicit;		/* not asked for by an ioctl: file closed, reset, device gone */
	pid_t tgid;
	pid_t tid;
	char comm[16];
	char exporter[16];
	char device[32];
};

int lab_log_init(void);
void lab_log_exit(void);
int lab_log_reserve(unsigned int n);
void lab_log_unreserve(unsigned int n);
void lab_log_start(struct lab_rec *r, enum lab_event event);
void lab_log_buffer(struct lab_rec *r, struct dma_buf *dmabuf);
void lab_log_table(struct lab_rec *r, const struct sg_table *sgt);
void lab_log_stop(struct lab_rec *r, int result);
void lab_log_commit(struct lab_rec *r);
void lab_log_try(struct lab_rec *r);
void lab_log_clear(void);
u64 lab_log_capacity(void);

/* ---- devices.c ---- */

struct lab_ctx;

struct lab_dev {
	struct mutex lock;		/* edu registers, attached context */
	struct device *dev;
	struct platform_device *pdev;
	struct pci_dev *pci;
	void __iomem *regs;
	struct lab_ctx *attached;
	u32 nr;
	u32 kind;
	u32 users;			/* under lab_lock */
	bool gone;			/* under lab_lock */
};

extern struct mutex lab_lock;

int lab_dev_add(struct lab_dev *d);
void lab_dev_del(struct lab_dev *d);
struct lab_dev *lab_dev_get(u32 nr);
void lab_dev_put(struct lab_dev *d);
int lab_dev_query(struct lab_req *q);
int lab_platform_create(struct lab_req *q);
int lab_platform_destroy(u32 nr);
void lab_platform_destroy_all(void);
int lab_platform_init(void);
void lab_platform_exit(void);

/* ---- edu.c ---- */

int lab_edu_init(void);
void lab_edu_exit(void);
int lab_edu_dma(struct lab_req *q);

/* ---- backing.c, buffer.c, exporter.c, forge.c ---- */

struct lab_backing {
	struct kref ref;
	unsigned int npages;
	unsigned int nruns;
	unsigned int run_pages;
	struct page *pages[];
};

struct lab_buf {
	struct mutex lock;		/* backing, maps, fail_left */
	struct lab_dev *provider;	/* whose memory it plays, for peer to peer; or NULL */
	struct lab_backing *backing;
	struct list_head maps;
	u64 ino;
	u64 size;
	u32 flags;
	u32 shape;
	u32 fail_step;
	u32 fail_error;
	u32 fail_left;			/* 0 and fail_once unset: always */
	bool fail_counted;
	u32 delay_ms;
	u32 run_pages;
};

/* One call of map: the honest table (what the DMA API knows) and the one handed out. */
struct lab_xmap {
	struct list_head node;
	struct dma_buf_attachment *attach;
	struct lab_backing *backing;
	struct sg_table real;
	struct sg_table out;
	unsigned int out_entries;	/* of out, if it is its own; else 0 */
	enum dma_data_direction dir;
	unsigned long attrs;
	bool mapped;
};

struct lab_backing *lab_backing_alloc(u64 size, u32 run_pages, u32 flags);
void lab_backing_put(struct lab_backing *k);
void lab_buf_free(struct lab_buf *b);
const struct dma_buf_ops *lab_pick_ops(u32 flags);
bool lab_is_dynamic(struct dma_buf *dmabuf);
bool lab_is_own(struct dma_buf *dmabuf);

int lab_forge(struct lab_xmap *x, u32 shape, struct device *dev);
void lab_unforge(struct lab_xmap *x);

int lab_export(struct lab_req *q);
int lab_move(struct lab_req *q);
int lab_cpu_access(struct lab_req *q, bool begin);

/* ---- importer.c, mapping.c ---- */

struct lab_client {
	struct list_head atts;		/* under lab_lock, as all lists of objects */
	struct list_head ctxs;
};

struct lab_att {
	struct kref ref;
	struct mutex lock;
	struct list_head node;
	struct list_head maps;		/* under lock, and under the reservation if dynamic */
	struct lab_dev *ldev;
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;	/* NULL once detached */
	u32 nr;
	u32 pins;
	bool dynamic;
	bool ignore_move;
};

struct lab_map {
	struct list_head node;
	struct lab_att *att;
	struct sg_table *sgt;
	enum dma_data_direction dir;
	u32 nr;
	bool translated;	/* by an IOMMU, as its device was when it was made */
};

struct lab_att *lab_att_lock(u32 nr);
void lab_att_unlock(struct lab_att *a);
void lab_att_put(struct lab_att *a);
void lab_resv_lock(struct lab_att *a);
void lab_resv_unlock(struct lab_att *a);
void lab_rec_att(struct lab_rec *r, struct lab_att *a);
int lab_attach(struct lab_client *c, struct lab_req *q);
int lab_detach(struct lab_req *q);
int lab_pin(struct lab_req *q);
int lab_unpin(struct lab_req *q);
void lab_atts_destroy(struct list_head *list);
void lab_atts_destroy_all(struct lab_dev *only);

/* The map with its attachment locked, its reservation too if it is dynamic. */
struct lab_map *lab_map_lock(u32 nr);
void lab_map_unlock(struct lab_att *a);
u32 lab_map_after(u32 nr);	/* the next number in use, 0 for none */
int lab_map(struct lab_req *q);
int lab_unmap(struct lab_req *q);
int lab_map_loop(struct lab_req *q);
void lab_unmap_all(struct lab_att *a);
void lab_forget_all(struct lab_att *a);

/* ---- context.c, level2.c, gpuvm.c ---- */

/* What dmabuf_lab_vm.ko brings; vm is its own. */
struct lab_vm_ops {
	struct module *owner;
	void *(*create)(struct device *dev);
	void (*free)(void *vm);
	int (*map)(void *vm, struct dma_buf_attachment *attach, u32 nr, u64 va, u64 offset,
		   u64 size);
	int (*unmap)(void *vm, u64 va, u64 size, u64 *unmapped);
};

int lab_vm_register(const struct lab_vm_ops *ops);
void lab_vm_unregister(const struct lab_vm_ops *ops);

int lab_ctx_create(struct lab_client *c, struct lab_req *q);
int lab_ctx_free(struct lab_req *q);
int lab_ctx_attach(struct lab_req *q);
int lab_ctx_detach(struct lab_req *q);
int lab_l2_map(struct lab_req *q);
int lab_l2_unmap(struct lab_req *q);
void lab_ctxs_destroy(struct list_head *list);
void lab_ctxs_destroy_all(struct lab_dev *only);
bool lab_ctx_dma_ok(struct lab_ctx *ctx, u64 addr, u64 size);

/* ---- table.c ---- */

void lab_table_init(struct dentry *dir);

/* ---- witness.c ---- */

void lab_witness_init(struct dentry *dir);
void lab_witness_exit(void);

/* ---- main.c ---- */

/* Marks the calling thread as one that undoes what nobody asked to undo; the log says so. */
struct lab_implicit {
	struct list_head node;
	struct task_struct *task;
};

u32 lab_number_after(struct xarray *objects, u32 nr);
bool lab_implicit(void);
void lab_implicit_begin(struct lab_implicit *i);
void lab_implicit_end(struct lab_implicit *i);

#endif
