// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/dmabuf_lab: one ioctl, dispatched to the file that knows the subject, and the end of
 * a file, which undoes what was made through it.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "lab.h"

DEFINE_MUTEX(lab_lock);

/* The next number in use behind one, 0 if there is none. */
u32 lab_number_after(struct xarray *objects, u32 nr)
{
	unsigned long next = nr;
	bool found;

	mutex_lock(&lab_lock);
	found = xa_find_after(objects, &next, ULONG_MAX, XA_PRESENT);
	mutex_unlock(&lab_lock);
	return found ? next : 0;
}

/* The threads that undo things right now; each entry is on its thread's stack. */
static LIST_HEAD(implicits);
static DEFINE_SPINLOCK(implicits_lock);

bool lab_implicit(void)
{
	struct lab_implicit *i;
	bool found = false;

	spin_lock(&implicits_lock);
	list_for_each_entry(i, &implicits, node)
		if (i->task == current)
			found = true;
	spin_unlock(&implicits_lock);
	return found;
}

void lab_implicit_begin(struct lab_implicit *i)
{
	i->task = current;
	spin_lock(&implicits_lock);
	list_add(&i->node, &implicits);
	spin_unlock(&implicits_lock);
}

void lab_implicit_end(struct lab_implicit *i)
{
	spin_lock(&implicits_lock);
	list_del(&i->node);
	spin_unlock(&implicits_lock);
}

static int lab_info(struct lab_req *q)
{
	q->version = LAB_VERSION;
	q->count = LAB_MAX_DEVICES;
	q->size = lab_log_capacity();
	return 0;
}

static int lab_mark(struct lab_req *q)
{
	struct lab_rec r;
	int ret = lab_log_reserve(1);

	if (ret)
		return ret;
	lab_log_start(&r, LAB_EV_MARK);
	r.count = q->count;
	lab_log_stop(&r, 0);
	lab_log_commit(&r);
	return 0;
}

static int lab_reset(void)
{
	struct lab_implicit i;

	lab_implicit_begin(&i);
	lab_ctxs_destroy_all(NULL);
	lab_atts_destroy_all(NULL);
	lab_platform_destroy_all();
	lab_implicit_end(&i);
	return 0;
}

static int lab_dispatch(struct lab_client *c, struct lab_req *q)
{
	switch (q->op) {
	case LAB_OP_INFO:
		return lab_info(q);
	case LAB_OP_DEVICE:
		return lab_dev_query(q);
	case LAB_OP_PLATFORM:
		return lab_platform_create(q);
	case LAB_OP_PLATFORM_DESTROY:
		return lab_platform_destroy(q->device);
	case LAB_OP_EXPORT:
		return lab_export(q);
	case LAB_OP_MOVE:
		return lab_move(q);
	case LAB_OP_CPU_BEGIN:
	case LAB_OP_CPU_END:
		return lab_cpu_access(q, q->op == LAB_OP_CPU_BEGIN);
	case LAB_OP_ATTACH:
		return lab_attach(c, q);
	case LAB_OP_DETACH:
		return lab_detach(q);
	case LAB_OP_PIN:
		return lab_pin(q);
	case LAB_OP_UNPIN:
		return lab_unpin(q);
	case LAB_OP_MAP:
		return lab_map(q);
	case LAB_OP_UNMAP:
		return lab_unmap(q);
	case LAB_OP_MAP_LOOP:
		return lab_map_loop(q);
	case LAB_OP_CONTEXT_CREATE:
		return lab_ctx_create(c, q);
	case LAB_OP_CONTEXT_FREE:
		return lab_ctx_free(q);
	case LAB_OP_CONTEXT_ATTACH:
		return lab_ctx_attach(q);
	case LAB_OP_CONTEXT_DETACH:
		return lab_ctx_detach(q);
	case LAB_OP_L2_MAP:
		return lab_l2_map(q);
	case LAB_OP_L2_UNMAP:
		return lab_l2_unmap(q);
	case LAB_OP_EDU_DMA:
		return lab_edu_dma(q);
	case LAB_OP_MARK:
		return lab_mark(q);
	case LAB_OP_LOG_CLEAR:
		lab_log_clear();
		return 0;
	case LAB_OP_RESET:
		return lab_reset();
	default:
		return -EINVAL;
	}
}

static long lab_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct lab_req *q;
	long ret;

	if (cmd != LAB_IOC_REQ)
		return -ENOTTY;
	q = memdup_user((void __user *)arg, sizeof(*q));
	if (IS_ERR(q))
		return PTR_ERR(q);
	if (q->direction > DMA_FROM_DEVICE)
		ret = -EINVAL;
	else
		ret = lab_dispatch(file->private_data, q);
	if (copy_to_user((void __user *)arg, q, sizeof(*q)))
		ret = -EFAULT;
	kfree(q);
	return ret;
}

static int lab_open(struct inode *inode, struct file *file)
{
	struct lab_client *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return -ENOMEM;
	INIT_LIST_HEAD(&c->atts);
	INIT_LIST_HEAD(&c->ctxs);
	file->private_data = c;
	return 0;
}

static int lab_close(struct inode *inode, struct file *file)
{
	struct lab_client *c = file->private_data;
	struct lab_implicit i;

	lab_implicit_begin(&i);
	lab_ctxs_destroy(&c->ctxs);
	lab_atts_destroy(&c->atts);
	lab_implicit_end(&i);
	kfree(c);
	return 0;
}

static const struct file_operations lab_fops = {
	.owner = THIS_MODULE,
	.open = lab_open,
	.release = lab_close,
	.unlocked_ioctl = lab_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice lab_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmabuf_lab",
	.fops = &lab_fops,
	.mode = 0600,
};

static int __init lab_init(void)
{
	int ret = lab_log_init();

	if (ret)
		return ret;
	ret = lab_platform_init();
	if (ret)
		goto log;
	ret = lab_edu_init();
	if (ret)
		goto platform;
	ret = misc_register(&lab_misc);
	if (ret)
		goto edu;
	return 0;
edu:
	lab_edu_exit();
platform:
	lab_platform_exit();
log:
	lab_log_exit();
	return ret;
}

static void __exit lab_exit(void)
{
	misc_deregister(&lab_misc);
	lab_reset();
	lab_edu_exit();
	lab_platform_exit();
	lab_log_exit();
}

module_init(lab_init);
module_exit(lab_exit);
MODULE_DESCRIPTION("dma-buf exporter, importers and contexts for tests");
MODULE_LICENSE("GPL");
LAB_IMPORT_NS(DMA_BUF);
