/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef STUB_LINUX_TYPES_H
#define STUB_LINUX_TYPES_H

typedef unsigned char __u8, u8;
typedef signed char __s8, s8;
typedef unsigned short __u16, u16, __be16, __le16, __sum16;
typedef short __s16, s16;
typedef unsigned int __u32, u32, __be32, __le32, __wsum, gfp_t;
typedef int __s32, s32, pid_t;
typedef unsigned long long __u64, u64, __be64, __le64, __aligned_u64;
typedef long long __s64, s64;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t, intptr_t;
typedef u64 phys_addr_t, dma_addr_t;
typedef _Bool bool;
enum { false = 0, true = 1 };

#define NULL ((void *)0)

/* bcc sizes ring buffers in pages; the loader says how large the machine's are. */
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif

#endif
