# SPDX-License-Identifier: Apache-2.0
"""What holding and sending batches costs, without BPF: programs/spooler.c plays agentd, the exporter is the real one.

    delivery  ODI_BENCH_BATCHES batches (default 10,000, scaled) of 200 KB to a receiver that answers in 50 ms: the exporter's
              CPU time beside that of unpacking and packing the same bytes alone, its memory, how much of the receiver's
              pace it keeps
    outage    a spool that is full: how long opening it takes, and memory then"""

from cost import *  # noqa: F403

SPOOLER = os.path.join(BUILD, "bench/spooler")
ANSWER_SECONDS = 0.05


def spooler(*args, timeout=3600):
    r = subprocess.run([SPOOLER, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    if r.returncode:
        raise RuntimeError(f"spooler {args[0]}: {r.stderr.strip()}")
    return {k: float(v) for k, v in (line.split() for line in r.stdout.splitlines())}


def receiver_at_50_ms():
    """Answers each request 50 ms after it is whole, without looking at it: the receiver must not be what is measured."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_POST(self):
            left = int(self.headers["Content-Length"])
            while left > 0:
                left -= len(self.rfile.read(min(left, 1 << 16)))
            time.sleep(ANSWER_SECONDS)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def delivery(table):
    count = int(os.environ.get("ODI_BENCH_BATCHES", 0)) or max(int(10000 * SCALE), 20)
    server = receiver_at_50_ms()
    r = spooler("deliver", os.path.join(temp_folder(), "spool"), f"http://127.0.0.1:{server.server_port}", count)
    server.shutdown()
    ratio = r["exporter_cpu"] / max(r["yardstick_cpu"], 1e-3)
    pace = r["requests"] * ANSWER_SECONDS / r["seconds"]
    table.add(f"delivery: {count} batches of {r['raw_bytes'] / 1000:.0f} KB, exporter's CPU of that of unpacking and packing alone",
              f"{ratio:.2f} times", "1.5 times", ratio <= 1.5)  # fmt: skip
    table.add("delivery: memory of the exporter (PSS, peak)", f"{r['exporter_pss'] / 1e6:.1f} MB", "12 MB",
              r["exporter_pss"] <= 12e6)  # fmt: skip
    table.add("delivery: share of the time in which the receiver, which answers in 50 ms, was busy", f"{100 * pace:.0f} %",
              "bounded by the receiver", pace >= 0.5)  # fmt: skip


def outage(table):
    size = max(int(512 * SCALE), 16) << 20
    folder = os.path.join(temp_folder(), "spool")
    filled = spooler("fill", folder, size)
    subprocess.run(["sync"], check=False)
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
    except OSError:
        pass  # a container: the pages are warm then
    r = spooler("open", folder)
    shutil.rmtree(folder, ignore_errors=True)
    if r["batches"] != filled["batches"]:
        raise RuntimeError(f"{filled['batches']} batches were written, {r['batches']} are there")
    table.add(f"outage: opening a spool of {r['spool_bytes'] / 1e6:.0f} MB, {r['batches']:.0f} batches that wait",
              f"{r['recovery_ms']:.0f} ms", "1 s", r["recovery_ms"] <= 1000)  # fmt: skip
    table.add("outage: memory of these batches in the exporter", f"{r['memory_bytes'] / 1e6:.1f} MB", "flat", r["memory_bytes"] <= 16e6)
