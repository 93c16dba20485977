/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables and their mappings: what is known of one, its scatterlist, what an event says of it. */

struct mapping {
	u32 id;
	u32 attachment;
};

/*
 * A table has its place in an array, by its address: a hash table takes 700 instructions more to
 * enter, find and leave. Where another table has the place there is a hash table all the same;
 * `claims` is how many want the place.
 */
struct mapping_place {
	u64 table;
	u64 claims;
	struct mapping mapping;
};
#define MAPPING_BITS 15
BPF_TABLE("array", u32, struct mapping_place, mapping_places, 1 << MAPPING_BITS);
BPF_TABLE("hash", u64, struct mapping, mappings, 65536);

static inline struct mapping *in_place(struct mapping_place *place, u64 table)
{
	if (place->table == table)
		return &place->mapping;
	return place->claims > !!place->table ? mappings.lookup(&table) : NULL;
}

static inline struct mapping *mapping_of(u64 table)
{
	u32 at = hash_of(table, MAPPING_BITS);
	struct mapping_place *place = mapping_places.lookup(&at);

	return place ? in_place(place, table) : NULL;
}

static inline void keep_mapping(u64 table, u32 id, u32 attachment)
{
	struct mapping fresh = { .id = id, .attachment = attachment };
	u32 at = hash_of(table, MAPPING_BITS);
	struct mapping_place *place = mapping_places.lookup(&at);
	struct mapping *known;

	if (!place)
		return;
	known = in_place(place, table);
	if (known)
		*known = fresh;
	else if (!fetch_add(&place->claims, 1)) {
		place->mapping = fresh;
		place->table = table;
	} else if (mappings.update(&table, &fresh)) {
		fetch_add(&place->claims, -1);
		count(ST_UNTRACKED, 1);
	}
}

static inline void drop_mapping(u64 table)
{
	u32 at = hash_of(table, MAPPING_BITS);
	struct mapping_place *place = mapping_places.lookup(&at);

	if (!place)
		return;
	if (place->table == table)
		place->table = 0;
	else if (place->claims <= !!place->table || mappings.delete(&table))
		return;
	fetch_add(&place->claims, -1);
}

#define SG_BYTES 32	/* of a struct scatterlist, on all that we know (layout.py looks) */

struct chunk {
	struct chunk_header header;
	u8 entries[CHUNK_BYTES];
	u64 left;		/* entries to come; here, where the verifier forgets what it was */
};
/*
 * Each program that copies tables has a slot of its own, twins too: a program never runs twice at
 * once on one CPU, but one may run on top of another.
 */
enum chunk_slot { SLOT_MAP, SLOT_ATTACH, SLOT_TWINS, SLOTS = 2 * SLOT_TWINS };
BPF_TABLE("percpu_array", int, struct chunk, chunk_space, SLOTS);

struct table_facts {
	u64 address;
	u32 nents, orig_nents, copied, mapping, flags;
};

/* A table of a few entries goes straight into the ring: half the cost of a copy and an output. */
#define SMALL_TABLE 4
struct small_chunk {
	struct chunk_header header;
	u8 entries[SMALL_TABLE * SG_BYTES];
};

static inline void send_small_table(struct table_facts *facts, struct scatterlist *sgl, u64 total)
{
	struct small_chunk *chunk = chunks.ringbuf_reserve(sizeof(*chunk));
	u64 bytes = total * SG_BYTES;

	asm volatile("" : "+r"(bytes));
	if (chunk) {
		chunk->header.mapping = facts->mapping;
		chunk->header.first = 0;
		chunk->header.count = total;
		chunk->header.total = total;
		if (bytes <= sizeof(chunk->entries) &&
		    !bpf_probe_read_kernel(chunk->entries, bytes, sgl)) {
			chunks.ringbuf_submit(chunk, BPF_RB_NO_WAKEUP);
			facts->copied = total;
			return;
		}
		chunks.ringbuf_discard(chunk, BPF_RB_NO_WAKEUP);
	}
	count(ST_SEGMENTS_LOST, total);
	facts->flags |= EF_SEGMENTS_LOST;
}

/*
 * Copy the next chunk of a scatterlist as it is. 1, so that repeat() ends, when it was the last, there
 * is no room, or the list is shorter than it says, or not readable.
 */
SUBPROGRAM(int, copy_chunk, volatile struct chunk *chunk; struct scatterlist *sgl;)
{
	volatile struct chunk *chunk = a->chunk;
	struct scatterlist *sgl = a->sgl, *last;
	u64 n, bytes, link, left = chunk->left;
	bool more = left > SG_BLOCK;

	/* A full block's last slot is the link to the next block. */
	n = more ? SG_BLOCK - 1 : left;
	bytes = n * SG_BYTES;
	/* Added to, not or-ed: of a sum the verifier knows the bound. */
	asm volatile("" : "+r"(bytes));
	if (bpf_probe_read_kernel((void *)chunk->entries, bytes, sgl))
		return 1;
	chunk->header.count = n;
	if (chunks.ringbuf_output((void *)chunk, sizeof(chunk->header) + bytes, BPF_RB_NO_WAKEUP))
		return 1;
	chunk->header.first += n;
	chunk->left = left - n;
	if (!more)
		return 1;
	last = (void *)sgl + (SG_BLOCK - 1) * SG_BYTES;
	link = READ(last, page_link);
	a->sgl = (void *)(link & ~3UL);
	return !(link & SG_CHAIN);
}

/* Copy it chunk after chunk along its chain, never past its last entry. */
static inline void send_table(struct table_facts *facts, struct scatterlist *sgl, int slot)
{
	u64 total = facts->nents > facts->orig_nents ? facts->nents : facts->orig_nents;
	u64 i, left, most = FACT(MAX_SEGMENTS), turns = FACT(MAX_CHUNKS);
	struct copy_chunk copy = { .sgl = sgl };

	if (total <= SMALL_TABLE) {
		if (sgl && total)
			send_small_table(facts, sgl, total);
		return;
	}
	if (total > most)
		facts->flags |= EF_CUT;
	if (role() == SECOND)
		slot += SLOT_TWINS;
	copy.chunk = chunk_space.lookup(&slot);
	if (!copy.chunk || !sgl)
		return;
	copy.chunk->header.mapping = facts->mapping;
	copy.chunk->header.total = total;
	copy.chunk->header.first = 0;
	copy.chunk->left = total > most ? most : total;
	/* The verifier goes through it once for all turns, through a loop of ours once for each. */
	if (NUMBER(copy_chunk) && FACT(LOOP))
		repeat(turns, ADDRESS(copy_chunk), &copy, 0);
	else
		for (i = 0; i < turns && !copy_chunk_body(&copy); i++)
			;
	facts->copied = copy.chunk->header.first;
	left = copy.chunk->left;
	if (left) {
		count(ST_SEGMENTS_LOST, left);
		facts->flags |= EF_SEGMENTS_LOST;
	}
}

static inline void read_table(struct table_facts *facts, struct sg_table *table)
{
	struct scatterlist *sgl = LOAD(table, sgl);

	facts->nents = LOAD(table, nents);
	facts->orig_nents = LOAD(table, orig_nents);
	if (sgl)
		facts->address = LOAD(sgl, dma_address);
}

static inline bool is_cached(struct dma_buf_attachment *at, struct sg_table *table)
{
	/* Up to 6.14. */
	return HAVE(dma_buf_attachment, sgt) && LOAD(at, sgt) == table;
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

