/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every subject shares: the rings, the ids, the per-thread frames of dma-buf calls, and how
 * an event is begun and sent. The loader puts this file in front of the subjects and hands bcc
 * one text: bcc rewrites map accesses only in its main file.
 *
 * A handler is on_<hook>_entry(struct call *) or on_<hook>_exit(struct call *). The loader writes
 * the programs around them, for fentry/fexit, kprobes or raw tracepoints (probes/source.py), so
 * that a handler never knows how it was reached.
 */

struct call {
	u64 arg[5];
	u64 ret;
	void *ctx;
};

#define MAX_ERRNO 4095
#define IS_ERR(p) ((u64)(p) >= (u64)-MAX_ERRNO)

/* Read one member of a kernel struct (struct definitions: generated from BTF). */
#define READ(ptr, member) ({						\
	typeof((ptr)->member) _value = 0;				\
	bpf_probe_read_kernel(&_value, sizeof(_value), &(ptr)->member);	\
	_value; })

/* One copy of a loop's body, not one for each turn: less to compile, to verify and to load. */
#define KEEP_LOOP(i) asm volatile("" : "+r"(i))

BPF_RINGBUF_OUTPUT(events, EVENT_RING_PAGES);
BPF_RINGBUF_OUTPUT(chunks, CHUNK_RING_PAGES);

struct counters {
	u64 n[ST_COUNT];
};
BPF_TABLE("percpu_array", int, struct counters, stats, 1);

/* The ids: one counter for each kind of object, starting at 1. */
enum id_kind { ID_BUFFER, ID_ATTACHMENT, ID_MAPPING, ID_DEVICE, ID_DOMAIN, ID_CONTEXT, ID_KINDS };
BPF_TABLE("array", int, u64, ids, ID_KINDS);

BPF_STACK_TRACE(stacks, 4096);

static inline void count(int which, u64 n)
{
	int zero = 0;
	struct counters *counters = stats.lookup(&zero);

	if (counters)
		counters->n[which] += n;
}

/*
 * The next id of a kind. The backend of older bcc cannot emit an atomic fetch-and-add, so a store
 * with a telling offset stands for one and the loader puts the real instruction in its place
 * (BPF_FETCH, Linux 5.12: 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg")).
 */
static inline u32 next_id(int kind)
{
	u64 *counter = ids.lookup(&kind);
	u64 id = 1;

	if (!counter)
		return 0;
	asm volatile("*(u64 *)(%1 + 0x7af0) = %0" : "+r"(id) : "r"(counter) : "memory");
	return id + 1;
}

static inline struct event *begin(int kind)
{
	struct event *e = events.ringbuf_reserve(sizeof(struct event));
	u64 pid;

	if (!e) {
		count(ST_EVENTS_LOST, 1);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	pid = bpf_get_current_pid_tgid();
	e->ts_ns = bpf_ktime_get_ns();
	e->tgid = pid >> 32;
	e->tid = pid;
	e->kind = kind;
	e->stack = -1;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	return e;
}

/* No wake-up: it costs the traced path 400 ns; user space drains on a timer. */
static inline void submit(struct event *e)
{
	events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static inline void send_name(int kind, u32 buffer, u32 device, const char *name)
{
	struct event *e;
	long n;

	if (!name)
		return;
	e = begin(kind);
	if (!e)
		return;
	e->buffer = buffer;
	e->device = device;
	n = bpf_probe_read_kernel_str(e->text, sizeof(e->text), name);
	if (n == sizeof(e->text))
		e->flags = EF_CUT;
	submit(e);
}

static inline int kernel_stack(struct call *c)
{
	return stacks.get_stackid(c->ctx, 0);
}

static inline void every_stack(struct event *e, struct call *c)
{
#ifdef STACKS_EVERYWHERE
	e->stack = kernel_stack(c);
#endif
}
