/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/types.h>
#include <bcc/bpf.h>
