/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bcc asks; nothing here depends on the answer. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
