/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scatterlists: copied raw into the second ring, and what an event says of a table. */

struct chunk {
	struct chunk_header header;
	u8 entries[CHUNK_BYTES];
};
/*
 * Each program that copies tables has a slot of its own: a program never runs twice at once on
 * one CPU, but one may run on top of another.
 */
enum chunk_slot { SLOT_MAP, SLOT_ATTACH, SLOTS };
BPF_TABLE("percpu_array", int, struct chunk, chunk_space, SLOTS);

struct table_facts {
	u64 address;
	u32 nents, orig_nents, copied, mapping, flags;
};

/* Copy the scatterlist as it is, chunk after chunk along its chain, never past its last entry. */
static inline void send_table(struct table_facts *facts, struct scatterlist *sgl, int slot)
{
	u32 total = facts->nents > facts->orig_nents ? facts->nents : facts->orig_nents;
	u32 left = total > MAX_SEGMENTS ? MAX_SEGMENTS : total;
	struct chunk *chunk;
	u64 bytes, link;
	int i;
	u32 n;

	if (total > left)
		facts->flags |= EF_CUT;
	chunk = chunk_space.lookup(&slot);
	if (!chunk || !sgl)
		return;
	chunk->header.mapping = facts->mapping;
	chunk->header.total = total;
	chunk->header.first = 0;
	for (i = 0; i < MAX_CHUNKS; i++) {
		if (!left)
			break;
		/* A full block's last slot is the link to the next block. */
		n = left > SG_BLOCK ? SG_BLOCK - 1 : left;
		bytes = (u64)n * sizeof(struct scatterlist);
		/* Keep the bound where the verifier of 6.1 can see it. */
		asm volatile("" : "+r"(bytes));
		bytes &= 2 * CHUNK_BYTES - 1;
		if (bytes > CHUNK_BYTES)
			break;
		if (bpf_probe_read_kernel(chunk->entries, bytes, sgl))
			break;
		chunk->header.count = n;
		if (chunks.ringbuf_output(chunk, sizeof(chunk->header) + bytes,
					  BPF_RB_NO_WAKEUP)) {
			count(ST_SEGMENTS_LOST, left);
			facts->flags |= EF_SEGMENTS_LOST;
			return;
		}
		facts->copied += n;
		chunk->header.first += n;
		left -= n;
		if (!left)
			break;
		link = READ(sgl + (SG_BLOCK - 1), page_link);
		if (!(link & SG_CHAIN))
			break;
		sgl = (void *)(link & ~3UL);
	}
	if (left) {		/* a list that is shorter than it says, or not readable */
		count(ST_SEGMENTS_LOST, left);
		facts->flags |= EF_SEGMENTS_LOST;
	}
}

static inline void read_table(struct table_facts *facts, struct sg_table *table)
{
	struct scatterlist *sgl = READ(table, sgl);

	facts->nents = READ(table, nents);
	facts->orig_nents = READ(table, orig_nents);
	if (sgl)
		facts->address = READ(sgl, dma_address);
}

static inline bool is_cached(struct dma_buf_attachment *at, struct sg_table *table)
{
#ifdef HAVE_DMA_BUF_ATTACHMENT_SGT	/* up to 6.14 */
	return READ(at, sgt) == table;
#else
	return false;
#endif
}

static inline void fill_table(struct event *e, struct table_facts *facts)
{
	e->mapping = facts->mapping;
	e->flags |= facts->flags;
	e->map.nents = facts->nents;
	e->map.orig_nents = facts->orig_nents;
	e->map.address = facts->address;
	e->map.copied = facts->copied;
}

