/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every dma-buf and its attachments, without debugfs and without waiting for a buffer's lock: the
 * kernel's dmabuf iterator (in 6.16) calls dump() for each buffer, with a reference held. A text
 * of its own, not one of the probes; probes/iterator.py defines the offsets, from BTF.
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

static u64 word(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

int dump(u64 *ctx)
{
	u64 meta = ctx[0], buffer = ctx[1], head, node, device, name;
	struct record r = {};
	void *seq;

	if (!buffer)
		return 0;
	/* bcc would make a probe read of it, and the verifier wants to see where seq comes from. */
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(seq) : "r"(meta));
	r.ino = word(word(word(buffer + DMA_BUF_FILE) + FILE_F_INODE) + INODE_I_INO);
	r.size = word(buffer + DMA_BUF_SIZE);
	/* A file_ref_t counts from -1, and one reference is the iterator's. */
	r.count = word(word(buffer + DMA_BUF_FILE) + FILE_F_REF);
	bpf_probe_read_kernel_str(r.text[0], TEXT, (void *)word(buffer + DMA_BUF_EXP_NAME));
	name = word(buffer + DMA_BUF_NAME);
	if (name)
		bpf_probe_read_kernel_str(r.text[1], TEXT, (void *)name);
	bpf_seq_write(seq, &r, sizeof(r));

	r.kind = 1;
	head = buffer + DMA_BUF_ATTACHMENTS;
	node = word(head);
	for (int i = 0; i < MAX_ATTACHMENTS && node && node != head; i++) {
		device = word(node - ATTACHMENT_NODE + ATTACHMENT_DEV);
		bpf_probe_read_kernel_str(r.text, sizeof(r.text),
					  (void *)word(device + DEVICE_NAME));
		bpf_seq_write(seq, &r, sizeof(r));
		node = word(node);
	}
	return 0;
}
