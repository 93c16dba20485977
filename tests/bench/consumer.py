# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the product's ring is drained, and bcc's own ring callback beside it.

`consumer.py ours|bcc RECORDS EVENTS CALLS_PER_SECOND LOAD` prints one JSON object. The consumer has
the first processor, the load the second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "native"), str(HERE.parents[1])]

RING = 16 << 20

BCC_TEXT = """
struct record { u64 words[14]; };
BPF_RINGBUF_OUTPUT(events, PAGES);
BPF_ARRAY(lost, u64, 1);
int on_enter(u64 *ctx)
{
	u64 many = 0, magic = 0, *n;
	int zero = 0;
	if (ctx[1] != NR_GETPPID)
		return 0;
	bpf_probe_read_kernel(&magic, 8, (void *)(ctx[0] + PARM2));
	if (magic != 0x62617265)
		return 0;
	bpf_probe_read_kernel(&many, 8, (void *)(ctx[0] + PARM1));
	for (int i = 0; i < 64; i++) {
		struct record *r;
		if (i >= many)
			break;
		r = events.ringbuf_reserve(sizeof(*r));
		if (!r) {
			n = lost.lookup(&zero);
			if (n)
				__sync_fetch_and_add(n, 1);
			continue;
		}
		__builtin_memset(r, 0, sizeof(*r));
		r->words[0] = bpf_ktime_get_ns();
		r->words[1] = bpf_get_current_pid_tgid();
		events.ringbuf_submit(r, 0);
	}
	return 0;
}
"""


def drive(load: list[str], drain: Callable[[], None], pause_s: float) -> dict[str, Any]:
    """Run the load and drain until it ends; CPU seconds are this process's."""
    first, *_, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {last})
    process = subprocess.Popen(load, stdout=subprocess.PIPE)  # inherits it
    os.sched_setaffinity(0, {first})
    cpu = time.process_time()
    while process.poll() is None:
        drain()
        if pause_s:
            time.sleep(pause_s)
    drain()
    cpu = time.process_time() - cpu
    assert process.stdout
    return {"cpu_s": cpu, "load_s": float(process.stdout.read())}


def ours(load: list[str]) -> dict[str, Any]:
    """Loader, ring and copies as `trace` does it, on its timer."""
    import native

    from dmabuf_tool.probes import maps
    from dmabuf_tool.probes.ring import RECORD, EventRing

    loaded = native.load(RING)
    ring = EventRing(loaded.maps["events"], RING)
    # Once round the ring: a fresh page of a virtual machine's memory takes its host's time.
    native.send(RING // RECORD.itemsize)
    ring.read()
    before = maps.counters(loaded.maps["stats"], 5)[native.LOST_EVENTS]
    got = 0

    def drain() -> None:
        nonlocal got
        got += len(ring.read())

    result = drive(load, drain, 0.001)
    lost = maps.counters(loaded.maps["stats"], 5)[native.LOST_EVENTS]
    return {**result, "received": got, "lost": lost - before}


def with_bcc(load: list[str]) -> dict[str, Any]:
    """The usual way: a callback for each record, which bcc decodes."""
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE.parents[1] / "dmabuf_tool/bpf/include")
    import native
    from bcc import BPF

    parm1, parm2 = (112, 104) if native.GETPPID == 110 else (0, 8)
    text = BCC_TEXT.replace("PAGES", str(RING // os.sysconf("SC_PAGE_SIZE")))
    flags = [f"-DNR_GETPPID={native.GETPPID}", f"-DPARM1={parm1}", f"-DPARM2={parm2}", "-Wno-all"]
    module = BPF(text=text, cflags=flags)
    module.attach_raw_tracepoint(tp="sys_enter", fn_name="on_enter")
    events = module["events"]
    got = 0

    def callback(_context: Any, data: Any, _size: int) -> None:
        nonlocal got
        if events.event(data).words[1]:
            got += 1

    events.open_ring_buffer(callback)
    result = drive(load, module.ring_buffer_consume, 0)
    return {**result, "received": got, "lost": module["lost"][0].value}


if __name__ == "__main__":
    what, records, many, rate, program = sys.argv[1:]
    run = {"ours": ours, "bcc": with_bcc}[what]
    print(json.dumps(run([program, records, many, rate])))
