#!/usr/bin/env python3
"""What looking costs: the scrape, the dashboard's pages, and what a scrape a second does to traffic.

    python3 benches/window.py [--images 1000000] [--rounds 6] [--seconds 8] [--binary FILE]

An index with --images images, ten to a manifest, so 100,000 manifests unless told otherwise. Programs, cores and places
are those of compare.py. The proxy has one worker, so the scrape runs on the very thread that serves: the worst case.
Each page is asked for once as the first of its kind, then fifty times more. Traffic runs in pairs of rounds, with and
without a scraper, each first equally often.
"""
import argparse
import http.client
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import compare

PAGES = ["/", "/collections", "/collections?after=90000", "/heals", "/search?q=Book%2099999", "/search?q=nobody",
         "/api/v1/manifests", "/api/v1/stats"]


def ask(path, wanted=200):
    """Milliseconds of one request on a connection of its own, and what was answered."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", compare.ADMIN, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - started) * 1000
    connection.close()
    if answer.status != wanted:
        sys.exit(f"{path}: {answer.status} {body[:300]!r}")
    return took, body


def told(times):
    times = sorted(times)
    return f"median {statistics.median(times):6.2f} ms  p99 {times[len(times) * 99 // 100]:6.2f} ms  most {times[-1]:6.2f} ms"


def known():
    lines = ask("/metrics")[1].decode().splitlines()
    return {name: int(float(line.split()[1])) for line in lines for name in ["images", "manifests"]
            if line.startswith(f"iiif_mender_index_{name} ")}


def pages():
    for path in PAGES:
        first, body = ask(path)
        times = [ask(path)[0] for _ in range(50)]
        print(f"{path:28} first {first:6.2f} ms  {told(times)}  {len(body) / 1024:.0f} KiB", flush=True)


def scraped(stop, times):
    while not stop.wait(1):
        times.append(ask("/metrics")[0])


def traffic(case, proxy, rounds, seconds, folder):
    runs, times = {False: [], True: []}, []
    compare.load(case, proxy, 1, folder)
    for number in range(rounds):
        for is_scraped in (False, True) if number % 2 == 0 else (True, False):
            stop = threading.Event()
            scraper = threading.Thread(target=scraped, args=(stop, times))
            if is_scraped:
                scraper.start()
            runs[is_scraped].append(compare.load(case, proxy, seconds, folder))
            stop.set()
            if is_scraped:
                scraper.join()
    for is_scraped, own in runs.items():
        middle = {key: statistics.median(run[key] for run in own) for key in own[0]}
        name = "a scrape a second" if is_scraped else "no scrape"
        print(f"{case:6} {name:18} p50 {middle['p50_us']:6.0f} µs  p99 {middle['p99_us']:6.0f} µs  "
              f"{middle['cpu_us']:6.1f} µs CPU a request  {middle['rps']:.0f}/s", flush=True)
    print(f"{case:6} /metrics meanwhile  {told(times)}, {len(times)} scrapes")


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--images", type=int, default=1_000_000)
    words.add_argument("--rounds", type=int, default=6)
    words.add_argument("--seconds", type=int, default=8)
    words.add_argument("--binary")
    words.add_argument("--folder", type=pathlib.Path, help="keeps what was made, and uses it again")
    args = words.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    root = pathlib.Path(__file__).parent.parent
    if not args.binary:
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "iiif-mender"], cwd=root, check=True)
    binary = args.binary or str(root / "target/release/iiif-mender")
    folder = args.folder or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    running = []
    try:
        if not (folder / "manifests").exists():
            compare.manifests(folder / "manifests", args.images, pages=10)
        compare.start(compare.origin(folder), compare.LOAD_CORE, [compare.ORIGIN], folder, running)
        command = compare.mender(folder, binary, args.images, False)
        pid = compare.start(command, compare.PROXY_CORE, [compare.MENDER, compare.ADMIN], folder, running)
        deadline = time.monotonic() + 60
        while known().get("images") != args.images:
            if time.monotonic() > deadline:
                sys.exit(f"the index has {known()}")
            time.sleep(0.2)
        print(f"load average {os.getloadavg()[0]:.1f}; {known()}", flush=True)
        pages()
        before = compare.cpu_us(pid)
        scrapes = told([ask("/metrics")[0] for _ in range(300)])
        used = (compare.cpu_us(pid) - before) / 300 / 1000
        print(f"{'/metrics':28} {scrapes}  {used:.2f} ms of processor time each", flush=True)
        proxy = compare.Proxy("iiif-mender", compare.MENDER, 0, pid, pid)
        for case in ("1k-c1", "1k"):
            traffic(case, proxy, args.rounds, args.seconds, folder)
        print(f"load average {os.getloadavg()[0]:.1f}")
    finally:
        compare.stop(running)
        if not args.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
