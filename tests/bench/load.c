/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls getppid(EVENTS, MAGIC_BARE) for so many records, as fast as it goes or PER_SECOND calls a
 * second; the raw tracepoint program of tests/native sends EVENTS records for each call.
 *
 *	load RECORDS EVENTS PER_SECOND(0: no limit)
 *
 * Prints the seconds it took.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAGIC_BARE 0x62617265UL

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	long records, events, calls, i;
	double per_second, begin;

	if (argc != 4)
		return 2;
	records = atol(argv[1]);
	events = atol(argv[2]);
	per_second = atof(argv[3]);
	calls = records / events;
	begin = now();
	for (i = 0; i < calls; i++) {
		while (per_second && i > (now() - begin) * per_second)
			;
		syscall(SYS_getppid, events, MAGIC_BARE);
	}
	printf("%.6f\n", now() - begin);
	return 0;
}
