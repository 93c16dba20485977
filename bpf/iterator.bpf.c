/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every dma-buf and its attachments, without debugfs and without waiting for a buffer's lock: the
 * kernel's dmabuf iterator (in 6.16) calls dump() for each buffer, with a reference held. A text
 * of its own, not one of the probes (probes/iterator.py).
 *
 * The list of attachments is walked without the reservation lock that guards it: an attachment
 * that goes meanwhile gives a wrong name at worst, and the walk is bounded.
 */

#define MAX_ATTACHMENTS 64
#define TEXT 32

/* One buffer, or, with kind 1, one attachment of the buffer before it. */
struct record {
	u64 kind;
	u64 ino;
	u64 size;
	u64 count;
	char text[2][TEXT];	/* exporter and name; the device's name over both */
};

int dump(u64 *ctx)
{
	u64 meta = ctx[0], head, node;
	struct dma_buf *buffer = (void *)ctx[1];
	struct dma_buf_attachment *at;
	struct record r = {};
	struct file *file;
	const char *name;
	void *seq;

	if (!buffer)
		return 0;
	/* bcc would make a probe read of it, and the verifier wants to see where seq comes from. */
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(seq) : "r"(meta));
	file = READ(buffer, file);
	r.ino = READ(READ(file, f_inode), i_ino);
	r.size = READ(buffer, size);
	/* A file_ref_t counts from -1, and one reference is the iterator's. */
	r.count = READ(file, f_ref);
	bpf_probe_read_kernel_str(r.text[0], TEXT, READ(buffer, exp_name));
	name = READ(buffer, name);
	if (name)
		bpf_probe_read_kernel_str(r.text[1], TEXT, name);
	bpf_seq_write(seq, &r, sizeof(r));

	r.kind = 1;
	head = (u64)INSIDE(buffer, attachments);
	node = READ(buffer, attachments);
	for (int i = 0; i < MAX_ATTACHMENTS && node && node != head; i++) {
		at = (void *)(node - OFFSET(struct dma_buf_attachment, node));
		bpf_probe_read_kernel_str(r.text, sizeof(r.text), READ(READ(at, dev), kobj_name));
		bpf_seq_write(seq, &r, sizeof(r));
		node = READ(at, node);
	}
	return 0;
}
