// SPDX-License-Identifier: GPL-2.0
/*
 * When an IOMMU driver told of a fault: debugfs "faults", a JSON object for each line of the kernel's
 * log that does, with the time at which it was printed, up to the last WITNESSED. Under load a
 * device's access and the interrupt that tells of it lie apart as far as the machine is slow; this is
 * the latter, by the clock of the log in log.c.
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/tracepoint.h>

#include "lab.h"

#define WITNESSED 256

static u64 fault_ns[WITNESSED];
static atomic_t fault_count = ATOMIC_INIT(0);
static struct tracepoint *console_point;

/* Inside printk, which may be anywhere: no lock, and a clock that never waits. */
static void on_console(void *data, const char *text, size_t len)
{
	unsigned int n;

	if (!strnstr(text, "fault addr", len) && !strnstr(text, "event 0x10 received", len) &&
	    !strnstr(text, "event: F_TRANSLATION", len))
		return;
	n = atomic_inc_return(&fault_count) - 1;
	WRITE_ONCE(fault_ns[n % WITNESSED], ktime_get_mono_fast_ns());
}

static int faults_show(struct seq_file *m, void *v)
{
	unsigned int count = atomic_read(&fault_count);
	unsigned int n = count > WITNESSED ? count - WITNESSED : 0;

	for (; n < count; n++)
		seq_printf(m, "{\"fault\":%u,\"ts_ns\":%llu}\n", n,
			   READ_ONCE(fault_ns[n % WITNESSED]));
	return 0;
}

DEFINE_SHOW_ATTRIBUTE(faults);

/* printk:console, which not all kernels export by name. */
static void find_console(struct tracepoint *tp, void *found)
{
	if (!strcmp(tp->name, "console"))
		*(struct tracepoint **)found = tp;
}

void lab_witness_init(struct dentry *dir)
{
	for_each_kernel_tracepoint(find_console, &console_point);
	if (!console_point || tracepoint_probe_register(console_point, on_console, NULL)) {
		console_point = NULL;
		return;
	}
	debugfs_create_file("faults", 0400, dir, NULL, &faults_fops);
}

void lab_witness_exit(void)
{
	if (!console_point)
		return;
	tracepoint_probe_unregister(console_point, on_console, NULL);
	tracepoint_synchronize_unregister();
}
