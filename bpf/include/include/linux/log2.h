/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bcc sizes stack maps with it; ours are powers of two. */
#define roundup_pow_of_two(n) (n)
