// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU's "edu" PCI device (docs/specs/edu.rst in QEMU): a device behind the IOMMU that
 * really reads and writes memory. Its DMA engine copies between a bus address and an
 * on-device buffer of 4096 bytes.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "lab.h"

#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_DMA_RUN		0x1
#define EDU_DMA_TO_MEMORY	0x2
#define EDU_BUFFER		0x40000
/*
 * The buffer has 4096 bytes, but older QEMU (7.2) counts the last one as out of bounds, and
 * dies of it: copy in halves.
 */
#define EDU_CHUNK		2048
#define EDU_MAX			(256 << 10)

static unsigned int edu_mask_bits = 32;
module_param(edu_mask_bits, uint, 0444);
MODULE_PARM_DESC(edu_mask_bits, "DMA mask of the edu devices, as QEMU's dma_mask says");

static int edu_probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	struct lab_dev *d;
	int ret;

	d = devm_kzalloc(&pci->dev, sizeof(*d), GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	ret = pcim_enable_device(pci);
	if (ret)
		return ret;
	d->regs = pcim_iomap(pci, 0, 0);
	if (!d->regs)
		return -ENOMEM;
	ret = dma_set_mask_and_coherent(&pci->dev, DMA_BIT_MASK(edu_mask_bits));
	if (ret)
		return ret;
	d->kind = LAB_KIND_EDU;
	d->pci = pci;
	d->dev = &pci->dev;
	ret = lab_dev_add(d);
	if (ret)
		return ret;
	pci_set_drvdata(pci, d);
	pci_set_master(pci);
	return 0;
}

static void edu_remove(struct pci_dev *pci)
{
	lab_dev_del(pci_get_drvdata(pci));
	pci_clear_master(pci);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "dmabuf_lab_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

/*
 * The engine runs from a 100 ms timer; the run bit drops when it is done. What it did, it did
 * after *busy_ns, when it was last seen not to be done, and before the return.
 */
static int edu_run(struct lab_dev *d, u64 bus, u32 len, bool to_memory, u64 *busy_ns)
{
	u64 end = ktime_get_ns() + 10 * NSEC_PER_SEC;

	writeq(to_memory ? EDU_BUFFER : bus, d->regs + EDU_DMA_SRC);
	writeq(to_memory ? bus : EDU_BUFFER, d->regs + EDU_DMA_DST);
	writeq(len, d->regs + EDU_DMA_COUNT);
	writeq(EDU_DMA_RUN | (to_memory ? EDU_DMA_TO_MEMORY : 0), d->regs + EDU_DMA_CMD);
	do {
		u64 now = ktime_get_ns();

		if (!(readl(d->regs + EDU_DMA_CMD) & EDU_DMA_RUN))
			return 0;
		*busy_ns = now;
		usleep_range(100, 200);
	} while (*busy_ns < end);
	return -ETIMEDOUT;
}

static int edu_dma_locked(struct lab_dev *d, struct lab_req *q)
{
	struct lab_rec r;
	u64 busy_ns = 0;
	u64 done;
	int ret;

	if (d->attached && !lab_ctx_dma_ok(d->attached, q->addr, q->size))
		return -EPERM;
	ret = lab_log_reserve(1);
	if (ret)
		return ret;
	lab_log_start(&r, LAB_EV_EDU_DMA);
	for (done = 0; !ret && done < q->size; done += EDU_CHUNK) {
		u32 len = min_t(u64, q->size - done, EDU_CHUNK);

		ret = edu_run(d, q->addr + done, len, q->direction == DMA_FROM_DEVICE, &busy_ns);
	}
	lab_log_stop(&r, ret);
	strscpy(r.device, dev_name(d->dev), sizeof(r.device));
	r.direction = q->direction;
	r.va = q->addr;
	r.offset = busy_ns;
	r.bytes = q->size;
	lab_log_commit(&r);
	q->ns = r.ts_ns - r.start_ns;
	return ret;
}

/*
 * direction: to device reads memory at addr, from device writes it. The device does not
 * say whether the IOMMU let it through; the kernel's log does.
 */
int lab_edu_dma(struct lab_req *q)
{
	struct lab_dev *d;
	int ret = -EINVAL;

	if (!q->size || q->size > EDU_MAX || q->direction == DMA_BIDIRECTIONAL)
		return -EINVAL;
	if (q->addr + q->size < q->addr || q->addr + q->size - 1 > DMA_BIT_MASK(edu_mask_bits))
		return -EINVAL;
	d = lab_dev_get(q->device);
	if (!d)
		return -ENODEV;
	if (d->kind == LAB_KIND_EDU) {
		mutex_lock(&d->lock);
		ret = edu_dma_locked(d, q);
		mutex_unlock(&d->lock);
	}
	lab_dev_put(d);
	return ret;
}

int lab_edu_init(void)
{
	edu_mask_bits = clamp(edu_mask_bits, 12u, 64u);
	return pci_register_driver(&edu_driver);
}

void lab_edu_exit(void)
{
	pci_unregister_driver(&edu_driver);
}
