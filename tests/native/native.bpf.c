/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A subject for the native tests and the benchmark: getppid(n, MAGIC) of any thread sends n events
 * through the product's ring, numbered on each CPU, with room for them or not. Reached by the raw
 * tracepoint sys_enter (struct pt_regs *regs, long id).
 */

#ifdef __TARGET_ARCH_x86
#define NR_GETPPID 110
#define REGS_PARM1 112	/* pt_regs.di, arch/x86/include/asm/ptrace.h */
#define REGS_PARM2 104	/* pt_regs.si */
#else
#define NR_GETPPID 173
#define REGS_PARM1 0	/* pt_regs.regs[0] */
#define REGS_PARM2 8
#endif
#define MOST 64
#define MAGIC 0x646d6162	/* a getppid() of anybody else has no arguments */
#define MAGIC_BARE 0x62617265	/* the benchmark's: records that say little, as fast as it goes */

BPF_TABLE("percpu_array", int, u64, sequence, 1);

static inline int on_load_entry(struct call *c)
{
	u64 many = 0, magic = 0, now = bpf_ktime_get_ns(), *next;
	int zero = 0;

	if (c->arg[1] != NR_GETPPID)
		return 0;
	bpf_probe_read_kernel(&magic, sizeof(magic), (void *)(c->arg[0] + REGS_PARM2));
	if (magic != MAGIC && magic != MAGIC_BARE)
		return 0;
	bpf_probe_read_kernel(&many, sizeof(many), (void *)(c->arg[0] + REGS_PARM1));
	next = sequence.lookup(&zero);
	if (!next)
		return 0;
	for (int i = 0; i < MOST; i++) {
		struct event *e;

		if (i >= many)
			break;
		e = magic == MAGIC ? begin(EV_EXPORT) : events.ringbuf_reserve(sizeof(*e));
		*next += 1;
		if (!e) {
			if (magic == MAGIC_BARE)
				count(ST_EVENTS_LOST, 1);
			continue;
		}
		if (magic == MAGIC_BARE) {
			e->ts_ns = now;
			e->kind = EV_EXPORT;
		}
		e->buf.ino = *next;
		e->buf.size = i;
		submit(e);
	}
	return 0;
}
