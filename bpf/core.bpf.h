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
	u32 program;	/* its number: twins have one */
	u32 tid;
};

/*
 * Where kernel code is preemptible, each program is attached twice: the trampoline skips a program
 * that a preempted task is inside of on this CPU, and then the second tells what the first did not
 * (docs/decisions.md). The loader puts the role in the place of the number.
 */
enum role { ALONE, FIRST, SECOND };

static inline u32 role(void)
{
	return FACT(role);
}

/*
 * A function that is there once, in one of the texts, and called from all: what many programs need
 * and few calls reach would otherwise be compiled, verified and loaded with each of them. bcc
 * inlines what it sees, so such a function is called like a helper, by a number that no helper
 * has, and the loader puts its body behind the program (probes/subprograms.py, which says which
 * text has it). Its arguments are a struct, which it knows as `a`.
 */
#define SUBPROGRAM(type, name, ...)					\
	struct name { __VA_ARGS__ };					\
	SUBPROGRAM_##name(type, name)					\
	static inline type name##_body(struct name *a)

#define CALLED(type, name, number)					\
	static type (*name)(struct name *) = (void *)number;

#define INLINED(type, name)						\
	static inline type name##_body(struct name *a);			\
	static inline type name(struct name *a)				\
	{								\
		return name##_body(a);					\
	}

#define MAX_ERRNO 4095
#define IS_ERR(p) ((u64)(p) >= (u64)-MAX_ERRNO)

/*
 * bpf_loop() of Linux 5.17 (e6f2dd0f8067 ("bpf: Add bpf_loop helper")), which older bcc has not: it
 * calls a subprogram as often as is said, or until that returns 1, with one argument for all turns.
 * ADDRESS() is the subprogram's; the loader knows it by the number (probes/linker.py), which is
 * zero where the text has its body inline.
 */
static long (*repeat)(u64 turns, u64 subprogram, void *argument, u64 flags) = (void *)181;

#define NUMBER(name) NUMBER_##name
#define ADDRESS(name) ({						\
	u64 _address;							\
	asm("%0 = %1 ll" : "=r"(_address) : "i"(NUMBER(name)));		\
	_address; })

/* A pointer as a number: the verifier lets nobody calculate with pointers. */
static inline u64 number(u64 pointer)
{
	asm volatile("%0 = -%0; %0 = -%0" : "+r"(pointer));
	return pointer;
}

/*
 * One copy of a loop's body, not one for each turn; and one of what follows, not one for each value
 * of the variable that LLVM tells apart (NULL, or not): less to compile, to verify and to load.
 */
#define KEEP_LOOP(i) asm volatile("" : "+r"(i))
#define KEEP_ONE(variable) KEEP_LOOP(variable)

/* As large as the loader makes them. */
BPF_RINGBUF_OUTPUT(events, 1);
BPF_RINGBUF_OUTPUT(chunks, 1);

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
		__sync_fetch_and_add(&counters->n[which], n);
}

/* Calls that the second of two programs told, because the first was skipped, by program. */
BPF_TABLE("percpu_array", u32, u64, taken, PROGRAMS);

static inline void take_over(struct call *c)
{
	u32 program = c->program;
	u64 *calls = taken.lookup(&program);

	if (calls)
		__sync_fetch_and_add(calls, 1);
}

/*
 * What the first of two programs leaves for the second, by thread and program, where there is no
 * frame to tell by. One that is left behind, because the second was skipped, does no harm before
 * the first is skipped, too: then both have missed a call, and that is counted.
 */
BPF_TABLE("lru_hash", u64, u64, stamps, 4096);

static inline bool is_told(struct call *c)
{
	u64 key = (u64)c->tid << 16 | c->program;
	u64 call = number(c->arg[0]) + number(c->arg[1]);
	u64 *stamp;

	if (role() == ALONE)
		return false;
	if (role() == FIRST) {
		stamps.update(&key, &call);
		return false;
	}
	stamp = stamps.lookup(&key);
	if (stamp && *stamp == call) {
		stamps.delete(&key);
		return true;
	}
	take_over(c);
	return false;
}

/*
 * Atomic fetch-and-add, which the backend of older bcc cannot emit: a store with a telling offset
 * stands for it and the loader puts the real instruction in its place (BPF_FETCH, Linux 5.12:
 * 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg")).
 */
static inline u64 fetch_add(u64 *counter, u64 n)
{
	asm volatile("*(u64 *)(%1 + 0x7af0) = %0" : "+r"(n) : "r"(counter) : "memory");
	return n;
}

/* The next id of a kind. */
static inline u32 next_id(int kind)
{
	u64 *counter = ids.lookup(&kind);

	return counter ? fetch_add(counter, 1) + 1 : 0;
}

SUBPROGRAM(int, fill_event, struct event *e; u64 kind;)
{
	struct event *e = a->e;
	u64 pid = bpf_get_current_pid_tgid(), *comm = (u64 *)e->comm;
	void *task = bpf_get_current_task_btf();

	__builtin_memset(e, 0, sizeof(*e));
	e->ts_ns = bpf_ktime_get_ns();
	e->tgid = pid >> 32;
	e->tid = pid;
	e->kind = a->kind;
	e->stack = -1;
	/* Padded with zeros by the kernel; bpf_get_current_comm() takes 150 instructions. */
	comm[0] = LOAD_TYPED(u64, task, __builtin_offsetof(struct task_struct, comm));
	comm[1] = LOAD_TYPED(u64, task, __builtin_offsetof(struct task_struct, comm) + 8);
	return 0;
}

static inline void start_event(struct event *e, int kind)
{
	fill_event(&(struct fill_event){ e, kind });
}

/* The same without a call: where every instruction counts, or a table's loop came before. */
static inline void start_event_here(struct event *e, int kind)
{
	fill_event_body(&(struct fill_event){ e, kind });
}

static inline struct event *reserve_event(void)
{
	struct event *e = events.ringbuf_reserve(sizeof(struct event));

	if (!e)
		count(ST_EVENTS_LOST, 1);
	return e;
}

static inline struct event *begin(int kind)
{
	struct event *e = reserve_event();

	if (e)
		start_event(e, kind);
	return e;
}

static inline struct event *begin_here(int kind)
{
	struct event *e = reserve_event();

	if (e)
		start_event_here(e, kind);
	return e;
}

/*
 * Two events that are told at once take one record of the ring: with a header of our own before
 * the second, they look like two to the reader, who asks of a header only whether it is finished,
 * in order (probes/ring.py).
 */
struct event_pair {
	struct event first;
	u32 length;
	u32 spare;
	struct event second;
};

static inline struct event_pair *begin_pair(int first, int second)
{
	struct event_pair *pair = events.ringbuf_reserve(sizeof(*pair));

	if (!pair) {
		count(ST_EVENTS_LOST, 2);
		return NULL;
	}
	start_event_here(&pair->first, first);
	pair->length = sizeof(pair->second);
	pair->spare = 0;
	pair->second = pair->first;
	pair->second.kind = second;
	return pair;
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

/*
 * The id of a stack is its place by hash, and -EEXIST where another has the place: without the
 * innermost frame, which is dma-buf's or BPF's own, it has another.
 */
static inline int kernel_stack(struct call *c)
{
	int id = stacks.get_stackid(c->ctx, 0);

	return id == -17 ? stacks.get_stackid(c->ctx, 1) : id;
}

static inline void every_stack(struct event *e, struct call *c)
{
	if (FACT(STACKS_EVERYWHERE))
		e->stack = kernel_stack(c);
}
