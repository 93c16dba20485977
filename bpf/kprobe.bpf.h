/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where fentry is not to be had, kprobes stand in: a kretprobe does not know the arguments, so
 * they are kept from entry to return, by thread and hook. A call may nest inside itself once.
 */

#ifdef __TARGET_ARCH_x86
struct pt_regs {	/* arch/x86/include/asm/ptrace.h */
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#else
struct user_pt_regs {	/* arch/arm64/include/uapi/asm/ptrace.h; pt_regs begins with it */
	u64 regs[31], sp, pc, pstate;
};
struct pt_regs {
	u64 regs[31], sp, pc, pstate;
};
#endif

struct saved_calls {
	u32 depth;
	u32 spare;
	u64 arg[2][5];
};

BPF_TABLE("lru_hash", u64, struct saved_calls, saved, 16384);
BPF_TABLE("percpu_array", int, struct saved_calls, no_calls, 1);

static inline void save_call(u32 hook, struct call *c)
{
	u64 key = (u64)(u32)bpf_get_current_pid_tgid() << 8 | hook;
	struct saved_calls *calls = saved.lookup(&key);
	int zero = 0;

	if (!calls) {
		struct saved_calls *fresh = no_calls.lookup(&zero);

		if (!fresh)
			return;
		saved.update(&key, fresh);
		calls = saved.lookup(&key);
		if (!calls)
			return;
	}
	if (calls->depth == 0)
		__builtin_memcpy(calls->arg[0], c->arg, sizeof(c->arg));
	else if (calls->depth == 1)
		__builtin_memcpy(calls->arg[1], c->arg, sizeof(c->arg));
	calls->depth++;
}

static inline bool restore_call(u32 hook, struct call *c)
{
	u64 key = (u64)(u32)bpf_get_current_pid_tgid() << 8 | hook;
	struct saved_calls *calls = saved.lookup(&key);

	if (!calls || !calls->depth) {
		count(ST_CALLS_LOST, 1);
		return false;
	}
	calls->depth--;
	if (calls->depth == 0) {
		__builtin_memcpy(c->arg, calls->arg[0], sizeof(c->arg));
		return true;
	}
	if (calls->depth == 1) {
		__builtin_memcpy(c->arg, calls->arg[1], sizeof(c->arg));
		return true;
	}
	count(ST_CALLS_LOST, 1);
	return false;
}
