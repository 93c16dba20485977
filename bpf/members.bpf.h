/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How programs read kernel structs whose layout is not known when they are compiled. The struct
 * definitions that the loader generates have their members at offsets that stand for the real
 * ones; here they go into single instructions, which the loader finds and fills in when it knows
 * the kernel (probes/marks.py). No other code may use an offset of a kernel's struct, or add to
 * one: the compiler would calculate with what only stands for a number.
 */

/* What is known when a program is loaded: zero or one, or a number of 31 bits. */
#define FACT(name) ({							\
	u64 _fact;							\
	asm("%0 = %1" : "=r"(_fact) : "i"(FACT_##name));		\
	_fact; })

/* Whether this kernel's struct has a member that not every kernel's has. */
#define HAVE(type, member) FACT(HAVE_##type##_##member)

/* The address of a member. */
#define INSIDE(ptr, member) ({						\
	u64 _at = (u64)(ptr);						\
	asm("%0 += %1" : "+r"(_at)					\
	    : "i"(MARKED_NUMBER + __builtin_offsetof(typeof(*(ptr)), member)));	\
	(typeof(&(ptr)->member))_at; })

/* The struct that a member is inside of: the way back. */
#define OFFSET(type, member) ({						\
	u64 _offset;							\
	asm("%0 = %1" : "=r"(_offset)					\
	    : "i"(MARKED_NUMBER + __builtin_offsetof(type, member)));	\
	_offset; })

/* Read one member of a kernel struct. */
#define READ(ptr, member) ({						\
	typeof((ptr)->member) _value = 0;				\
	bpf_probe_read_kernel(&_value, sizeof(_value), INSIDE(ptr, member));	\
	_value; })

/* Whether a bit field of one bit is set; false where a kernel has no such bit field. */
#define READ_BIT(type, ptr, member)					\
	(FACT(MASK_##type##_##member) &&				\
	 (READ(ptr, member) & FACT(MASK_##type##_##member)))

/*
 * The same of a pointer that the verifier knows the type of, as all are that lead away from an
 * argument of an fentry program: one instruction, where READ takes ninety. Faults give zero, too.
 */
#define LOAD_TYPED(type, ptr, offset) ({				\
	u64 _raw;							\
	if (sizeof(type) == 8)						\
		asm("%0 = *(u64 *)(%1 + %2)" : "=r"(_raw) : "r"(ptr), "i"(offset));	\
	else if (sizeof(type) == 4)					\
		asm("%0 = *(u32 *)(%1 + %2)" : "=r"(_raw) : "r"(ptr), "i"(offset));	\
	else								\
		asm("%0 = *(u8 *)(%1 + %2)" : "=r"(_raw) : "r"(ptr), "i"(offset));	\
	(type)_raw; })

#ifdef TYPED_ARGUMENTS
#define LOAD(ptr, member)						\
	LOAD_TYPED(typeof((ptr)->member), ptr, __builtin_offsetof(typeof(*(ptr)), member))
#else
#define LOAD(ptr, member) READ(ptr, member)
#endif

/* An argument of the traced function, and what it returned; zero where it has none. */
#define ARGUMENT(ctx, n) LOAD_TYPED(u64, ctx, MARKED_ARGUMENTS + 8 * n)
#define RETURNED(ctx) LOAD_TYPED(u64, ctx, MARKED_RETURNED)
