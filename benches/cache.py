#!/usr/bin/env python3
"""The cache against nginx proxy_cache and Varnish, in one run: each with as much memory, on the same core, in turns.

    python3 benches/cache.py [--rounds 12] [--seconds 2] [--tiles 100000] [--case NAME …] [--json FILE] [--binary FILE]

Builds iiif-mender (release) unless told which --binary. Needs two cores and these Debian packages; it installs nothing and
says what is missing: nginx-core varnish wrk util-linux.

One core has the proxy, the other the load and the origin. nginx keeps its files in /dev/shm: memory, as the others do.

    1k, 32k, 1m   processor time of a hit (the kernel's own count for all threads of the proxy)
    zipf          --tiles tiles of 4, 12 and 32 KiB, asked for by Zipf's law (1.0), with 64 MiB: hit ratio (by what the origin
                  was asked), p50 and p99, and the memory that each took for it
    crowd         requests to the origin for 200 readers who ask for one tile that nobody has, at once; it takes 300 ms
    outage        the origin is killed: how many of 500 tiles that were seen are 200, fresh and after they are stale
"""
import argparse
import concurrent.futures
import http.client
import http.server
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import compare
from compare import LOAD_CORE, ORIGIN, PROXY_CORE, SIZES, cpu_us, in_turns, nginx_conf, resident_kib, shown, spread, start, stop, target

NGINX, VARNISH, MENDER, ADMIN, SLOW = 18281, 18282, 18283, 18284, 18285
PACKAGES = {"nginx": "nginx-core", "varnishd": "varnish", "wrk": "wrk", "taskset": "util-linux"}
CASES = ["1k", "32k", "1m", "zipf", "crowd", "outage"]
# A hit's processor time against nginx and Varnish.
TARGETS = {"1k": (0.60, 0.40), "32k": (0.60, 0.40), "1m": (None, 1.0)}
ZIPF = {"4k": 4 << 10, "12k": 12 << 10, "32k": 32 << 10}
MEMORY = {"zipf": 64}
OTHERWISE = 256


def origin(folder, port, seconds):
    """Files in memory, which may be kept for so long, and a log with a line for each request."""
    for kind, size in {**SIZES, **ZIPF}.items():
        (folder / kind).write_bytes(random.Random(kind).randbytes(size))
    widths = {"1k": "100,", "32k": "512,", "1m": "full", "4k": "200,", "12k": "300,"}
    places = "".join(
        f'location ~ "^/iiif/2/[^/]+/full/{width}/" {{ root {folder}; default_type image/jpeg; try_files /{kind} =500; }}\n'
        for kind, width in widths.items())
    command = nginx_conf(folder, f"origin-{port}", f"""
  log_format one "1"; access_log {folder}/asked-{port} one buffer=64k flush=100ms; etag on;
  add_header Cache-Control "max-age={seconds}, public";
  server {{ listen 127.0.0.1:{port} backlog=4096; {places} }}""")
    path = folder / f"origin-{port}.conf"
    path.write_text(path.read_text().replace("access_log off;", ""))
    return command


def asked(folder, port):
    """Requests that the origin has had."""
    time.sleep(0.4)
    log = folder / f"asked-{port}"
    return log.stat().st_size // 2 if log.exists() else 0


def nginx(folder, upstream, memory):
    (folder / f"kept-{upstream}").mkdir(exist_ok=True)
    return nginx_conf(folder, f"nginx-{upstream}-{memory}", f"""
  upstream origin {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  proxy_cache_path {folder}/kept-{upstream} levels=1:2 keys_zone=kept:64m max_size={memory}m inactive=1d use_temp_path=off;
  server {{ listen 127.0.0.1:{NGINX} backlog=4096;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffer_size 16k; proxy_buffers 32 32k; proxy_busy_buffers_size 512k;
      proxy_cache kept; proxy_cache_lock on; proxy_cache_lock_timeout 10s; proxy_cache_use_stale error timeout http_500 http_502 http_503 http_504; }} }}""")


def varnish(folder, upstream, memory):
    name = folder / f"varnish-{upstream}-{memory}"
    name.mkdir(exist_ok=True)
    (folder / "default.vcl").write_text(f"""vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{upstream}"; }}
sub vcl_backend_response {{ set beresp.grace = 1d; }}""")
    return ["varnishd", "-F", "-j", "none", "-n", str(name), "-a", f"127.0.0.1:{VARNISH}", "-f", str(folder / "default.vcl"),
            "-s", f"malloc,{memory}M", "-p", "thread_pools=1", "-p", "feature=+http2"]


def mender(folder, upstream, memory, binary):
    path = folder / f"mender-{upstream}-{memory}.toml"
    path.write_text(f"""
[server]
listen = "127.0.0.1:{MENDER}"
workers = 1
[admin]
listen = "127.0.0.1:{ADMIN}"
[[routes]]
prefix = "/iiif/2/"
upstream = "http://127.0.0.1:{upstream}/iiif/2/"
kind = "image"
[[routes]]
prefix = "/iiif-service/"
upstream = "http://127.0.0.1:{upstream}/iiif-service/"
kind = "presentation"
[index]
path = "mender-{upstream}-{memory}.sqlite3"
[cache]
memory = "{memory}MiB"
[log]
filter = "info,iiif_mender::proxy=warn"
""")
    return [binary, "--config", str(path), "serve"]


class Cache:
    def __init__(self, name, port, pid):
        self.name, self.port, self.pid = name, port, pid


def caches(folder, upstream, memory, binary, running):
    commands = [("nginx", NGINX, nginx(folder, upstream, memory)), ("varnish", VARNISH, varnish(folder, upstream, memory)),
                ("iiif-mender", MENDER, mender(folder, upstream, memory, binary))]
    return [Cache(name, port, start(command, PROXY_CORE, [port], folder, running)) for name, port, command in commands]


def load(cache, paths, seconds, folder, connections=32):
    """One run over these paths in their order: requests, microseconds of the processor, percentiles."""
    script, listed = folder / "load.lua", folder / "paths"
    listed.write_text("\n".join(paths))
    script.write_text(f"""
local made, at = {{}}, 0
init = function() for path in io.lines("{listed}") do made[#made + 1] = wrk.format("GET", path) end end
request = function() at = at % #made + 1; return made[at] end
done = function(summary, latency)
  local e = summary.errors
  print(string.format("figures %d %d %d %d %d", summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end""")
    before = cpu_us(cache.pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{cache.port}"]
    run = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, check=False)
    used = cpu_us(cache.pid) - before
    line = next((line for line in run.stdout.splitlines() if line.startswith("figures")), None)
    if line is None:
        sys.exit(f"{cache.name}: {run.stdout}{run.stderr}")
    requests, size, failed, p50, p99 = map(int, line.split()[1:])
    if failed:
        sys.exit(f"{cache.name}: {failed} of {requests} failed")
    return {"requests": requests, "bytes": size, "cpu_us": used / requests, "rps": requests / seconds, "p50_us": p50, "p99_us": p99}


def fetch(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, len(body)


def hits(kind, proxies, rounds, seconds, folder):
    """Processor time of a hit."""
    paths = [target(kind, number) for number in range(40 if kind == "1m" else 1000)]
    for proxy in proxies:
        for path in paths * 2:
            if fetch(proxy.port, path) != (200, SIZES[kind]):
                sys.exit(f"{proxy.name}: a wrong answer to {path}")
    before = asked(folder, ORIGIN)
    runs = {proxy.name: [] for proxy in proxies}
    for proxy in in_turns(proxies, rounds):
        runs[proxy.name].append(load(proxy, paths, seconds, folder))
    missed = asked(folder, ORIGIN) - before
    ours, ratios = runs["iiif-mender"], {}
    for name, own in runs.items():
        if name != "iiif-mender":
            ratios[name] = spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(ours, own)])
        middle = spread([run["cpu_us"] for run in own])["median"]
        ratio = f"  ours/theirs {shown(ratios[name])}" if name in ratios else ""
        print(f"{kind:7} {name:12} {middle:7.1f} µs CPU for a hit{ratio}")
    print(f"{kind:7} wanted ≤ {TARGETS[kind][0]} of nginx, ≤ {TARGETS[kind][1]} of Varnish; {missed} requests were no hits\n", flush=True)
    return {"runs": runs, "ratios": ratios, "misses": missed}


def zipf_paths(tiles, count):
    """Paths by Zipf's law, the same for all."""
    chance = random.Random(7)
    ranks = list(itertools.accumulate(1 / rank for rank in range(1, tiles + 1)))
    widths = ["200,", "300,", "512,"]
    picked = chance.choices(range(tiles), cum_weights=ranks, k=count)
    return [f"/iiif/2/{compare.identifier(number)}/full/{widths[number % 3]}/0/default.jpg" for number in picked]


def zipf(folder, binary, tiles, seconds):
    warm, measured = zipf_paths(tiles, 300_000), zipf_paths(tiles, 300_000)[::-1]
    results = {}
    for at in range(3):
        running = []
        try:
            start(origin(folder, ORIGIN + 1, 3600), LOAD_CORE, [ORIGIN + 1], folder, running)
            memory = MEMORY["zipf"]
            name, port, command = [
                ("nginx", NGINX, nginx(folder, ORIGIN + 1, memory)), ("varnish", VARNISH, varnish(folder, ORIGIN + 1, memory)),
                ("iiif-mender", MENDER, mender(folder, ORIGIN + 1, memory, binary))][at]
            cache = Cache(name, port, start(command, PROXY_CORE, [port], folder, running))
            idle = used_kib(cache, folder)
            load(cache, warm, seconds * 3, folder)
            before = asked(folder, ORIGIN + 1)
            run = load(cache, measured, seconds * 3, folder)
            ratio = 1 - (asked(folder, ORIGIN + 1) - before) / run["requests"]
            grown = (used_kib(cache, folder) - idle) / 1024
            results[name] = {**run, "hit_ratio": ratio, "memory_mib": grown}
            print(f"zipf    {name:12} {ratio:6.1%} hits  p50 {run['p50_us']:6} p99 {run['p99_us']:6} µs  {run['rps']:8.0f}/s  "
                  f"{run['cpu_us']:6.1f} µs CPU  {grown:6.1f} MiB for {memory} MiB", flush=True)
        finally:
            stop(running)
            shutil.rmtree(folder / f"kept-{ORIGIN + 1}", ignore_errors=True)
            (folder / f"asked-{ORIGIN + 1}").unlink(missing_ok=True)
    print()
    return results


def used_kib(cache, folder):
    """Resident memory; of nginx its files in memory, too."""
    kept = folder / f"kept-{ORIGIN + 1}"
    files = sum(path.stat().st_blocks * 512 for path in kept.rglob("*") if path.is_file()) if cache.name == "nginx" else 0
    return resident_kib(cache.pid) + files / 1024


class SlowTile(http.server.BaseHTTPRequestHandler):
    """300 ms for a tile of 20 kB."""
    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self):
        type(self).count += 1
        time.sleep(0.3)
        body = b"x" * 20_000
        self.send_response(200)
        for name, value in (("Cache-Control", "max-age=60, public"), ("Content-Type", "image/jpeg"), ("Content-Length", len(body))):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def crowd(folder, binary):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", SLOW), SlowTile)
    server.socket.listen(1024)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running, results = [], {}
    try:
        for cache in caches(folder, SLOW, OTHERWISE, binary, running):
            SlowTile.count = 0
            path = target("32k", 4711)
            began = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(200) as readers:
                answers = list(readers.map(lambda _: fetch(cache.port, path), range(200)))
            took = time.monotonic() - began
            good = sum(answer == (200, 20_000) for answer in answers)
            results[cache.name] = {"requests": SlowTile.count, "good": good, "seconds": took}
            print(f"crowd   {cache.name:12} {SlowTile.count:4} requests to the origin for 200 readers, {good} of them served in {took:.2f} s")
    finally:
        stop(running)
        server.shutdown()
        server.server_close()
    print(flush=True)
    return results


def outage(folder, binary):
    running, results, port = [], {}, ORIGIN + 2
    try:
        server = []
        start(origin(folder, port, 4), LOAD_CORE, [port], folder, server)
        proxies = caches(folder, port, OTHERWISE, binary, running)
        paths = [target("32k", number) for number in range(500)]
        for proxy in proxies:
            for path in paths:
                fetch(proxy.port, path)
        # Fresh once more, so that all of them are when the origin goes.
        time.sleep(4.5)
        for proxy in proxies:
            for path in paths:
                fetch(proxy.port, path)
        stop(server)
        fresh = {proxy.name: sum(fetch(proxy.port, path)[0] == 200 for path in paths) for proxy in proxies}
        time.sleep(5)
        stale = {proxy.name: sum(fetch(proxy.port, path)[0] == 200 for path in paths) for proxy in proxies}
        for name in fresh:
            print(f"outage  {name:12} {fresh[name]} of 500 are 200, {stale[name]} after they were stale")
            results[name] = {"fresh": fresh[name], "stale": stale[name]}
    finally:
        stop(running)
    print(flush=True)
    return results


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=12)
    words.add_argument("--seconds", type=int, default=2)
    words.add_argument("--tiles", type=int, default=100_000)
    words.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    words.add_argument("--json", type=pathlib.Path, default=pathlib.Path("target/cache.json"))
    words.add_argument("--binary")
    args = words.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the proxy, one for the load")
    root = pathlib.Path(__file__).parent.parent
    if not args.binary:
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "iiif-mender"], cwd=root, check=True)
    binary = args.binary or str(root / "target/release/iiif-mender")
    results = {"machine": os.uname().version, "load": os.getloadavg(), "cases": {}}
    folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
    folder.chmod(0o755)
    print(f"load average {os.getloadavg()[0]:.1f}; {args.rounds} rounds of {args.seconds} s\n", flush=True)
    try:
        plain = [case for case in args.case if case in SIZES]
        running = []
        try:
            if plain:
                start(origin(folder, ORIGIN, 3600), LOAD_CORE, [ORIGIN], folder, running)
                proxies = caches(folder, ORIGIN, OTHERWISE, binary, running)
            for case in plain:
                results["cases"][case] = hits(case, proxies, args.rounds, args.seconds, folder)
        finally:
            stop(running)
        apart = {"zipf": lambda: zipf(folder, binary, args.tiles, args.seconds), "crowd": lambda: crowd(folder, binary),
                 "outage": lambda: outage(folder, binary)}
        for case in args.case:
            if case in apart:
                results["cases"][case] = apart[case]()
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
        print(f"load average {os.getloadavg()[0]:.1f}; all figures in {args.json}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
