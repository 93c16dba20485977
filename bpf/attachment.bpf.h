/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the programs that meet an attachment for the first time have in common. */

static inline bool exporter_pins(struct dma_buf *d)
{
	struct dma_buf_ops *ops = READ(d, ops);

	return READ(ops, pin);
}
