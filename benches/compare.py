#!/usr/bin/env python3
"""The data path against nginx and HAProxy: processor time per request, in the same rounds, on the same core.

    python3 benches/compare.py [--rounds 12] [--seconds 2] [--images 100000] [--case NAME …] [--json FILE]
                               [--binary FILE] [--bare [FILE]]

Builds iiif-mender (release) unless told which --binary. Needs two cores and these Debian packages; it installs nothing
and says what is missing: nginx-core haproxy wrk nghttp2-client openssl util-linux.

One core has the proxy, the other the load and the origin (nginx, files in memory). Each case is run with every proxy in
turn, round after round, so that what disturbs the machine disturbs all of them; figures are medians, and ratios are of
one round each. Processor time is the kernel's own count for the proxy's threads (/proc/PID/task/*/schedstat).
iiif-mender runs as shipped: healing, metrics, headers, an index with --images images, one worker.

    half   p99 while each proxy is asked for half of what nginx answers at most: the same rate for all of them, on cores
           that are kept awake (awake.py)
    cores  processor time of a request with two workers on two cores, of which the load has a part, against one worker;
           two divided by it is how many times one core two of them can be
    idle   KiB that a kept-alive connection costs

--bare puts the least proxy that hyper allows beside them (benches/floor/bare.rs) where HTTP/1.1 is spoken without TLS: nothing of
ours can be faster than that.

Every body is checked before the rounds (SHA-256 of each kind, through each proxy); in the rounds, status and length
of all of them (bytes read by the load generator) are.
"""
import argparse
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

from awake import awake

PROXY_CORE, LOAD_CORE = "1", "0"
ORIGIN, NGINX, HAPROXY, MENDER, ADMIN, BARE = 18080, 18081, 18082, 18083, 18084, 18085
TLS = 100  # Added to a proxy's port: the same with TLS and HTTP/2.
TWO = 200  # Added to ours: the same with two workers.
PACKAGES = {"nginx": "nginx-core", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client",
            "openssl": "openssl", "taskset": "util-linux"}
SIZES = {"1k": 1 << 10, "32k": 32 << 10, "1m": 1 << 20}
# name: (what is asked for, connections, how)
CASES = {
    "1k": ("1k", 32, "h1"), "32k": ("32k", 32, "h1"), "1m": ("1m", 32, "h1"), "404": ("404", 32, "h1"),
    "1k-c1": ("1k", 1, "h1"), "1k-c1000": ("1k", 1000, "h1"),
    "1k-tls": ("1k", 32, "tls"), "32k-tls": ("32k", 32, "tls"), "1m-tls": ("1m", 32, "tls"),
    "1k-h2": ("1k", 8, "h2"), "32k-h2": ("32k", 8, "h2"), "1m-h2": ("1m", 8, "h2"),
}
# Cases of their own kind.
APART = ["half", "cores", "idle"]
TARGETS = {"1m": 0.90, "404": 1.05, "1k-tls": 0.95}


def identifier(number):
    """The nth image; 404s are asked for with numbers below zero, which no index knows."""
    return str(uuid.UUID(bytes=hashlib.md5(f"image {number}".encode()).digest()))


def target(kind, number):
    size = {"1k": "100,", "32k": "512,", "1m": "full", "404": "512,"}[kind]
    return f"/iiif/2/{identifier(-1 - number if kind == '404' else number)}/full/{size}/0/default.jpg"


def manifests(folder, images, pages=100):
    base = "https://api.library.tamu.edu"
    folder.mkdir()
    for book in range(-(-images // pages)):
        canvases = []
        for page in range(min(pages, images - book * pages)):
            image = f"{base}/iiif/2/{identifier(book * pages + page)}"
            canvases.append({
                "@id": f"{base}/iiif-service/fedora/canvas/book-{book}/pages/{page}", "@type": "sc:Canvas",
                "images": [{"@type": "oa:Annotation", "motivation": "sc:painting", "resource": {
                    "@id": f"{image}/full/full/0/default.jpg", "@type": "dctypes:Image",
                    "service": {"@context": "http://iiif.io/api/image/2/context.json", "@id": image}}}]})
        text = {"@context": "http://iiif.io/api/presentation/2/context.json", "@type": "sc:Manifest", "label": f"Book {book}",
                "@id": f"{base}/iiif-service/fedora/presentation/book-{book}", "sequences": [{"canvases": canvases}]}
        (folder / f"{book}.json").write_text(json.dumps(text))


def nginx_conf(folder, name, servers):
    (folder / f"{name}.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 75s;
  client_body_temp_path {folder}/{name}-a; proxy_temp_path {folder}/{name}-b; fastcgi_temp_path {folder}/{name}-c;
  uwsgi_temp_path {folder}/{name}-d; scgi_temp_path {folder}/{name}-e; open_file_cache max=100;
  {servers}
}}""")
    return ["nginx", "-c", str(folder / f"{name}.conf")]


def origin(folder):
    for kind, size in SIZES.items():
        (folder / kind).write_bytes(hashlib.shake_256(kind.encode()).digest(size))
    places = "".join(
        f'location ~ "^/iiif/2/[^/]+/full/{size}/" {{ root {folder}; default_type image/jpeg; try_files /{kind} =500; }}\n'
        for kind, size in (("1k", "100,"), ("32k", "512,"), ("1m", "full")))
    unknown = "".join(f"{identifier(-1 - n)} 1; " for n in range(1000))
    return nginx_conf(folder, "origin", f"""
  map_hash_bucket_size 128; map_hash_max_size 8192;
  map $uri $gone {{ default 0; "~^/iiif/2/(?<id>[^/]+)/" $unknown; }} map $id $unknown {{ default 0; {unknown} }}
  server {{ listen 127.0.0.1:{ORIGIN} backlog=4096; if ($gone) {{ return 404; }} {places} }}""")


def nginx(folder):
    return nginx_conf(folder, "nginx", f"""
  upstream origin {{ server 127.0.0.1:{ORIGIN}; keepalive 1024; keepalive_requests 1000000000; }}
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3; ssl_session_cache off;
  server {{ listen 127.0.0.1:{NGINX} backlog=4096; listen 127.0.0.1:{NGINX + TLS} ssl http2 backlog=4096;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffer_size 16k; proxy_buffers 32 32k; proxy_busy_buffers_size 512k; proxy_max_temp_file_size 0; }} }}""")


def haproxy(folder):
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    (folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 8192
  tune.bufsize 65536
defaults
  mode http
  option forwardfor
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 75s
  timeout server 60s
frontend viewers
  bind 127.0.0.1:{HAPROXY} backlog 4096
  bind 127.0.0.1:{HAPROXY + TLS} ssl crt {folder}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3
  default_backend origin
backend origin
  server origin 127.0.0.1:{ORIGIN} pool-max-conn -1
""")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def mender(folder, binary, images, offset, workers=1):
    name, secure = f"mender-{offset}", offset == TLS
    tls = f'tls = {{ cert = "{folder}/cert.pem", key = "{folder}/key.pem" }}' if secure else ""
    (folder / f"{name}.toml").write_text(f"""
[server]
listen = "127.0.0.1:{MENDER + offset}"
public_hosts = ["api.library.tamu.edu"]
workers = {workers}
{tls}
[admin]
listen = "127.0.0.1:{ADMIN + offset}"
[[routes]]
prefix = "/iiif/2/"
upstream = "http://127.0.0.1:{ORIGIN}/iiif/2/"
kind = "image"
[[routes]]
prefix = "/iiif-service/"
upstream = "http://127.0.0.1:{ORIGIN}/iiif-service/"
kind = "presentation"
[index]
path = "{name}.sqlite3"
[[index.sources]]
path = "manifests/"
[log]
filter = "info,iiif_mender::proxy=warn"
""")
    if not (folder / "manifests").exists():
        manifests(folder / "manifests", images)
    command = [binary, "--config", str(folder / f"{name}.toml")]
    subprocess.run([*command, "index", "build"], check=True, stdout=subprocess.DEVNULL)
    return [*command, "serve"]


def tree(pid):
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_us(pid):
    tasks = (task for process in tree(pid) for task in pathlib.Path(f"/proc/{process}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def resident_kib(pid):
    status = (pathlib.Path(f"/proc/{process}/status").read_text() for process in tree(pid))
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in status)


class Proxy:
    def __init__(self, name, port, secure_port, pid, secure_pid):
        self.name, self.ports, self.pids = name, (port, secure_port), (pid, secure_pid)

    def at(self, how):
        secure = how != "h1"
        return self.ports[secure], self.pids[secure]


def start(command, core, ports, folder, running):
    log = open(folder / "output.log", "ab")
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=log, stderr=log)
    running.append(process)
    for port in ports:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"{command[0]} does not serve port {port}:\n{(folder / 'output.log').read_text()[-2000:]}")
                time.sleep(0.05)
    return process.pid


def stop(running):
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        process.wait(40)


def check_bodies(proxies, folder):
    for proxy in proxies:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[0])
        for kind in [*SIZES, "404"]:
            for number in range(20):
                connection.request("GET", target(kind, number))
                answer = connection.getresponse()
                body = answer.read()
                good = answer.status == 404 if kind == "404" else (
                    answer.status == 200
                    and hashlib.sha256(body).digest() == hashlib.sha256((folder / kind).read_bytes()).digest())
                if not good:
                    sys.exit(f"{proxy.name}: a wrong answer to {target(kind, number)}: {answer.status}, {len(body)} bytes")


def check_ciphers(proxies):
    anything = ssl._create_unverified_context()
    found = {}
    for proxy in proxies:
        with anything.wrap_socket(socket.create_connection(("127.0.0.1", proxy.ports[1]))) as connection:
            found[proxy.name] = connection.cipher()[0]
    if len(set(found.values())) > 1:
        sys.exit(f"not the same ciphers: {found}")


def urls(kind, port, scheme, folder):
    """A file of the URLs for h2load."""
    path = folder / f"urls-{kind}-{port}"
    path.write_text("\n".join(f"{scheme}://127.0.0.1:{port}{target(kind, n)}" for n in range(1000)))
    return str(path)


def load(case, proxy, seconds, folder):
    """One run: requests, microseconds of the processor, percentiles."""
    kind, connections, how = CASES[case]
    port, pid = proxy.at(how)
    before = cpu_us(pid)
    if how == "h2":
        command = ["h2load", "-c", str(connections), "-m", "8", "-D", str(seconds), "-i", urls(kind, port, "https", folder)]
    else:
        script = folder / f"{kind}.lua"
        paths = ",".join(f'"{target(kind, n)}"' for n in range(1000))
        script.write_text(f"""
local paths, made, at = {{{paths}}}, {{}}, 0
init = function() for i, path in ipairs(paths) do made[i] = wrk.format("GET", path) end end
request = function() at = at % #made + 1; return made[at] end
done = function(summary, latency)
  local e = summary.errors
  print(string.format("figures %d %d %d %d %d %d %d", summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.timeout, e.status, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9)))
end""")
        scheme = "https" if how == "tls" else "http"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"{scheme}://127.0.0.1:{port}"]
    run = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, check=False)
    used = cpu_us(pid) - before
    if how == "h2":
        found = re.search(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", run.stdout)
        requests, good, failed, errored = map(int, found.groups())
        size = int(re.search(r"\((\d+)\) data", run.stdout)[1])
        failed, figures = failed + errored, {}
        requests = good
    else:
        found = re.search(r"figures (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", run.stdout)
        requests, size, failed, refused, p50, p99, p999 = map(int, found.groups())
        figures = {"p50_us": p50, "p99_us": p99, "p999_us": p999}
        failed += refused if kind != "404" else requests - refused
    # Some are under way when the time is up.
    if failed or size < requests * SIZES.get(kind, 0):
        sys.exit(f"{proxy.name}, {case}: {failed} of {requests} failed, {size} bytes\n{run.stdout}{run.stderr}")
    return {"requests": requests, "cpu_us": used / requests, "rps": requests / seconds,
            "resident_kib": resident_kib(pid), **figures}


def idle_connections(proxy, many=1000):
    """KiB that a kept-alive connection costs, which made one request for 32 KiB and is idle since."""
    port, pid = proxy.at("h1")
    before, held = resident_kib(pid), []
    for number in range(many):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", target("32k", number))
        connection.getresponse().read()
        held.append(connection)
    # Buffers are given back after a second of rest.
    time.sleep(3)
    grown = resident_kib(pid) - before
    for connection in held:
        connection.close()
    return grown / many


def spread(each):
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def shown(ratio):
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})"


def in_turns(things, rounds):
    """Each of them once a round; each goes first equally often."""
    for number in range(rounds):
        turn = number % len(things)
        yield from things[turn:] + things[:turn]


def half_load(proxies, rounds, seconds, folder):
    """p99 of 32 connections at one rate for all proxies: half of what nginx answers at most."""
    nginx_most = load("1k", proxies[0], seconds, folder)["rps"]
    each_second = max(1, round(nginx_most / 2 / 32))
    log, runs = folder / "half.log", {proxy.name: [] for proxy in proxies}
    with awake(PROXY_CORE, LOAD_CORE):
        for proxy in in_turns(proxies, rounds):
            command = ["h2load", "--h1", "-c", "32", "-D", str(seconds), "--rps", str(each_second), f"--log-file={log}",
                       "-i", urls("1k", proxy.ports[0], "http", folder)]
            log.unlink(missing_ok=True)
            subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, check=True)
            rows = [row.split("\t") for row in log.read_text().splitlines()]
            if not rows or any(status != "200" for _, status, _ in rows):
                sys.exit(f"{proxy.name}, half: not every answer is 200")
            cuts = statistics.quantiles((int(took) for *_, took in rows), n=1000)
            runs[proxy.name].append({"rps": len(rows) / seconds, "p50_us": cuts[499], "p99_us": cuts[989], "p999_us": cuts[998]})
    ratio = spread([ours["p99_us"] / theirs["p99_us"] for ours, theirs in zip(runs["iiif-mender"], runs["nginx"])])
    for name, own in runs.items():
        middle = {key: statistics.median(run[key] for run in own) for key in own[0]}
        print(f"half      {name:12} {middle['rps']:8.0f}/s of {each_second * 32}  p50 {middle['p50_us']:6.0f}  "
              f"p99 {middle['p99_us']:6.0f}  p99.9 {middle['p999_us']:6.0f} µs")
    print(f"half      p99, ours/nginx {shown(ratio)}, wanted ≤ 1.00\n", flush=True)
    return {"asked_each_second": each_second * 32, "p99_ratio_to_nginx": ratio, "wanted": 1.1, "runs": runs}


def two_cores(one, two, rounds, seconds, folder):
    """Processor time of a request with two workers against one, and what that leaves of a second core."""
    runs = {one: [], two: []}
    for proxy in in_turns([one, two], rounds):
        runs[proxy].append(load("1k", proxy, seconds, folder)["cpu_us"])
    ratio = spread([both / single for single, both in zip(runs[one], runs[two])])
    times = 2 / ratio["median"]
    print(f"cores     two workers {statistics.median(runs[two]):.1f} µs CPU, one {statistics.median(runs[one]):.1f}: {shown(ratio)}; "
          f"at most {times:.2f} times one core, wanted ≥ 1.80\n", flush=True)
    return {"cpu_us": {"one": runs[one], "two": runs[two]}, "ratio": ratio, "at_most_times": times, "wanted": 1.8}


def compare(case, proxies, rounds, seconds, folder):
    proxies = [proxy for proxy in proxies if CASES[case][2] == "h1" or proxy.ports[1]]
    runs = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        load(case, proxy, 1, folder)
    for proxy in in_turns(proxies, rounds):
        runs[proxy.name].append(load(case, proxy, seconds, folder))
    middle = {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in runs.items()}
    ratios = {}
    for other in runs:
        if other != "iiif-mender":
            ratios[other] = spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(runs["iiif-mender"], runs[other])])
    # TLS and HTTP/2 are held against nginx, everything else against the better one.
    best = "nginx" if CASES[case][2] != "h1" else min(["nginx", "haproxy"], key=lambda name: middle[name]["cpu_us"])
    for name, own in middle.items():
        tails = f"p50 {own['p50_us']:6.0f}  p99 {own['p99_us']:6.0f}  p99.9 {own['p999_us']:6.0f} µs" if "p50_us" in own else ""
        ratio = ratios.get(name)
        against = f"  ours/theirs {shown(ratio)}" if ratio else ""
        print(f"{case:9} {name:12} {own['cpu_us']:7.1f} µs CPU  {own['rps']:8.0f}/s  {own['resident_kib'] / 1024:5.1f} MiB  {tails}{against}")
    wanted = TARGETS.get(case, 1.0)
    print(f"{case:9} against {best}: {shown(ratios[best])}, wanted ≤ {wanted:.2f}\n", flush=True)
    return {"medians": middle, "ratios": ratios, "against": best, "wanted": wanted, "runs": runs}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=12)
    words.add_argument("--seconds", type=int, default=2)
    words.add_argument("--images", type=int, default=100_000)
    words.add_argument("--case", nargs="+", choices=[*CASES, *APART])
    words.add_argument("--json", type=pathlib.Path, default=pathlib.Path("target/compare.json"))
    words.add_argument("--binary")
    words.add_argument("--bare", nargs="?", const="")
    args = words.parse_args()
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the proxy, one for the load")
    os.environ["PATH"] += ":/usr/sbin"
    root = pathlib.Path(__file__).parent.parent
    if not args.binary:
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "iiif-mender"], cwd=root, check=True)
    binary = args.binary or str(root / "target/release/iiif-mender")
    if args.bare == "":
        subprocess.run(["cargo", "build", "--locked", "--release", "--example", "bare"], cwd=root, check=True)
        args.bare = str(root / "target/release/examples/bare")
    cases = args.case or [*CASES, *APART]
    running, results = [], {"machine": os.uname().version, "load": os.getloadavg(), "cases": {}}
    folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
    folder.chmod(0o755)
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost"],
                       check=True, stderr=subprocess.DEVNULL)
        start(origin(folder), LOAD_CORE, [ORIGIN], folder, running)
        pid = start(nginx(folder), PROXY_CORE, [NGINX, NGINX + TLS], folder, running)
        proxies = [Proxy("nginx", NGINX, NGINX + TLS, pid, pid)]
        pid = start(haproxy(folder), PROXY_CORE, [HAPROXY, HAPROXY + TLS], folder, running)
        proxies.append(Proxy("haproxy", HAPROXY, HAPROXY + TLS, pid, pid))
        plain, secure = (start(mender(folder, binary, args.images, offset), PROXY_CORE, [MENDER + offset], folder, running)
                         for offset in (0, TLS))
        proxies.append(Proxy("iiif-mender", MENDER, MENDER + TLS, plain, secure))
        print(f"load average {os.getloadavg()[0]:.1f}; {args.rounds} rounds of {args.seconds} s; idle with {args.images} images: "
              f"{resident_kib(plain) / 1024:.1f} MiB resident\n", flush=True)
        check_bodies(proxies, folder)
        check_ciphers(proxies)
        others = []
        if args.bare:
            command = [args.bare, f"127.0.0.1:{BARE}", f"127.0.0.1:{ORIGIN}"]
            others.append(Proxy("bare hyper", BARE, None, start(command, PROXY_CORE, [BARE], folder, running), None))
            check_bodies(others, folder)
        for case in cases:
            if case == "idle":
                results["idle"] = {proxy.name: idle_connections(proxy) for proxy in proxies}
                for name, kib in results["idle"].items():
                    print(f"idle      {name:12} {kib:.1f} KiB for a kept-alive connection")
            elif case == "half":
                results["half"] = half_load(proxies, args.rounds, args.seconds, folder)
            elif case == "cores":
                pair = start(mender(folder, binary, args.images, TWO, 2), f"{LOAD_CORE},{PROXY_CORE}", [MENDER + TWO], folder, running)
                two = Proxy("two workers", MENDER + TWO, None, pair, None)
                results["cores"] = two_cores(proxies[-1], two, args.rounds, args.seconds, folder)
            else:
                results["cases"][case] = compare(case, proxies + others, args.rounds, args.seconds, folder)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
        print(f"load average {os.getloadavg()[0]:.1f}; all figures in {args.json}")
    finally:
        stop(running)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
