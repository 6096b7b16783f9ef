#!/usr/bin/env python3
"""What heals cost, in the real binary before the stand-ins of tests/testbed.

    python3 benches/heals.py [--rounds 12] [--case cold burst sweep hang …] [--ladder visit default …] [--binary FILE]
                             [--testbed FILE] [--json FILE]

Builds both (release) unless told which. Needs two cores, taskset (util-linux) and wrk; it installs
nothing. One core has the proxy, the other the stand-ins and the load; both are kept awake (awake.py).

    cold    a client that makes the three requests itself (404, canvas, 200) against one that asks the proxy; canvas 0 ms
    burst   200 viewers ask for tiles of one expired image in the same moment; canvas 100 ms; another image each round
    sweep   2,000 expired images, 32 clients, concurrency 32, canvas 5 ms
    hang    the healthy p50 before, and while 100 heals wait for canvases that do not come

Each with `heal.ladder = ["visit"]` (one canvas request a heal, as a script would make it) and with the ladder that is the default,
in which the file itself is asked for (`direct`) as soon as it is known where it is, and its canvas built behind.
"""
import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from awake import awake
from compare import cpu_us

PROXY_CORE, LOAD_CORE = "1", "0"
BASE = "https://api.library.tamu.edu"
TILE = "0,0,64,64/64,/0/default.jpg"
PACKAGES = {"wrk": "wrk", "taskset": "util-linux"}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Asker:
    """One kept-alive connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path, method="GET"):
        self.connection.request(method, path)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


class World:
    """The stand-ins with one book, and the proxy in front of them."""

    def __init__(self, folder, binary, testbed, pages, ladder, more):
        self.folder, self.running = folder, []
        self.images, self.service, self.control, self.port = (free_port() for _ in range(4))
        self.start(LOAD_CORE, [testbed, "--book", f"obj/book:{pages}", "--page-size", "64:64",
                               "--manifests", f"{folder}/manifests", "--images", f"127.0.0.1:{self.images}",
                               "--service", f"127.0.0.1:{self.service}", "--control", f"127.0.0.1:{self.control}"],
                   self.control)
        (folder / "config.toml").write_text(f"""
[server]
listen = "127.0.0.1:{self.port}"
public_hosts = ["api.library.tamu.edu"]
workers = 1
max_connections_per_address = 0
[admin]
listen = "off"
setup_check = "0s"
[[routes]]
prefix = "/iiif/2/"
upstream = "http://127.0.0.1:{self.images}/iiif/2/"
kind = "image"
[[routes]]
prefix = "/iiif-service/"
upstream = "http://127.0.0.1:{self.service}/iiif-service/"
kind = "presentation"
[[index.sources]]
path = "manifests/"
[cache]
memory = 0
[log]
filter = "error"
[heal]
ahead = 0
{'' if ladder == 'default' else f'ladder = ["{ladder}"]'}
cooldown = "1ms"
mass_expiry = {{ ids = 1000000, within = "1s" }}
{more}
""")
        command = [binary, "--config", str(folder / "config.toml")]
        subprocess.run([*command, "index", "build"], check=True, stdout=subprocess.DEVNULL)
        self.pid = self.start(PROXY_CORE, [*command, "serve"], self.port)
        self.switches, self.viewer = Asker(self.control), Asker(self.port)
        texts = (folder / "manifests").rglob("*.json")
        found = [image for text in sorted(texts) for image in re.findall(rf"{BASE}/iiif/2/([^/\"]+)\"", text.read_text())]
        self.identifiers = list(dict.fromkeys(found))
        canvases = [canvas for text in (folder / "manifests").rglob("*.json")
                    for canvas in re.findall(rf"{BASE}(/iiif-service/[^\"]*canvas[^\"#]*)\"", text.read_text())]
        self.canvases = list(dict.fromkeys(canvases))

    def start(self, core, command, port):
        log = open(self.folder / "output.log", "ab")
        process = subprocess.Popen(["taskset", "-c", core, *command], stdout=log, stderr=log)
        self.running.append(process)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process.pid
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"{command[0]} does not start:\n{(self.folder / 'output.log').read_text()[-2000:]}")
                time.sleep(0.05)

    def switch(self, word):
        assert self.switches.ask(f"/{word}", "POST")[0] == 200, word

    def counts(self):
        return json.loads(self.switches.ask("/")[1])["counts"]

    def settles(self):
        """Waits until nothing more is asked upstream: what is healed behind a picture that was sent is over."""
        before = None
        while before != (before := self.counts()):
            time.sleep(0.05)
        return before

    def tile(self, number, tile=TILE):
        return f"/iiif/2/{self.identifiers[number]}/{tile}"

    def load(self, paths, clients):
        """Each path once, by so many clients: seconds until all were answered 200."""
        script = self.folder / "once.lua"
        listed = ",".join(f'"{path}"' for path in paths)
        script.write_text(f"""
local ffi = require("ffi")
ffi.cdef[[ typedef struct {{ long s; long ns; }} moment; int clock_gettime(int, moment *); ]]
local function now() local m = ffi.new("moment[1]"); ffi.C.clock_gettime(1, m); return tonumber(m[0].s) + tonumber(m[0].ns) / 1e9 end
local paths, at, good, began = {{{listed}}}, 0, 0, nil
request = function()
  at = at + 1
  -- What it asks for while it connects is never sent.
  if at <= {clients} then return wrk.format("GET", "/none") end
  began = began or now()
  return wrk.format("GET", paths[at - {clients}] or "/none")
end
response = function(status)
  if status == 200 then good = good + 1 end
  if good == #paths then print(string.format("ended %.6f", now() - began)); wrk.thread:stop() end
end""")
        run = subprocess.run(["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{clients}", "-d5s", "-s", str(script),
                              f"http://127.0.0.1:{self.port}"], capture_output=True, text=True, check=True)
        found = re.search(r"ended ([\d.]+)", run.stdout)
        assert found, f"not all were answered 200\n{run.stdout}{run.stderr}"
        return float(found[1])

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
            process.wait(40)


def timed(asker, path, wanted=200):
    began = time.perf_counter()
    status, _ = asker.ask(path)
    assert status == wanted, f"{path}: {status}"
    return time.perf_counter() - began


def cold(world, rounds):
    images, service = Asker(world.images), Asker(world.service)
    by_hand, by_us = [], []
    for number in range(rounds * 20):
        at = number % len(world.identifiers)
        world.switch("expire")
        path = world.tile(at)
        by_hand.append(timed(images, path, 404) + timed(service, world.canvases[at]) + timed(images, path))
        world.switch("expire")
        by_us.append(timed(world.viewer, path))
        time.sleep(0.003)
        world.settles()
    by_hand, by_us = statistics.median(by_hand), statistics.median(by_us)
    return {"by_hand_ms": 1e3 * by_hand, "by_us_ms": 1e3 * by_us, "added_ms": 1e3 * (by_us - by_hand)}


def burst(world, rounds):
    world.switch("canvas-delay?100")
    figures = {"canvas": [], "images": []}
    for number in range(min(rounds, 100)):
        world.load([world.tile(0)] * 200, 200)
        world.switch("expire")
        world.switch("clear-counts")
        # One that nobody asked for yet: an image that was well within the last minute is never held.
        world.load([world.tile(1 + number)] * 200, 200)
        counts = world.counts()
        figures["canvas"].append(sum(counts[kind] for kind in ("visits", "variants", "rebuilds", "register")))
        figures["images"].append(counts["images"] + counts["info"])
        time.sleep(0.05)
    return {"canvas_requests": max(figures["canvas"]), "image_requests_median": statistics.median(figures["images"]),
            "image_requests_most": max(figures["images"])}


def sweep(world, rounds):
    world.switch("canvas-delay?5")
    paths = [world.tile(number) for number in range(2000)]
    # The stand-ins make a picture when it is first asked for.
    world.switch("register")
    images = Asker(world.images)
    for path in paths:
        timed(images, path)
    seconds, each = [], []
    asked = 0
    for _ in range(rounds):
        world.switch("expire")
        world.switch("clear-counts")
        before = cpu_us(world.pid)
        seconds.append(world.load(paths, 32))
        counts = world.settles()
        each.append((cpu_us(world.pid) - before) / 2000)
        asked = max(asked, sum(counts[kind] for kind in ("visits", "variants", "rebuilds", "register")))
        assert asked <= 2001, counts
    return {"seconds": statistics.median(seconds), "cpu_us_each": statistics.median(each),
            "canvas_requests_most": asked}


def hang(world, rounds):
    world.switch("register")

    def healthy():
        return 1e6 * statistics.median(timed(world.viewer, world.tile(number % 100)) for number in range(200 * rounds))

    healthy()
    before = healthy()
    world.switch("canvas-delay?600000")
    held = []
    for number in range(100, 200):
        world.switch(f"expire?{world.identifiers[number]}")
        waiting = Asker(world.port)
        waiting.connection.request("GET", world.tile(number))
        held.append(waiting)
    time.sleep(0.5)
    while_hanging = healthy()
    return {"p50_us_before": before, "p50_us_while_100_hang": while_hanging, "ratio": while_hanging / before}


# What it needs: pages, and what the configuration says more.
CASES = {"cold": (cold, 50, ""), "burst": (burst, 101, ""), "sweep": (sweep, 2000, "concurrency = 32"),
         "hang": (hang, 200, "concurrency = 100")}


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=12)
    words.add_argument("--case", nargs="+", choices=CASES, default=[*CASES])
    words.add_argument("--ladder", nargs="+", default=["visit", "default"])
    words.add_argument("--binary")
    words.add_argument("--testbed")
    words.add_argument("--json", type=pathlib.Path, default=pathlib.Path("target/heals.json"))
    args = words.parse_args()
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
    root = pathlib.Path(__file__).resolve().parent.parent
    if not (args.binary and args.testbed):
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "iiif-mender", "--bin", "iiif-mender-testbed",
                        "-p", "iiif-mender", "-p", "iiif-mender-testbed"], cwd=root, check=True)
    binary = os.path.abspath(args.binary or root / "target/release/iiif-mender")
    testbed = os.path.abspath(args.testbed or root / "target/release/iiif-mender-testbed")
    results = {}
    print(f"load average {os.getloadavg()[0]:.1f}; {args.rounds} rounds")
    for name, ladder in ((name, ladder) for name in args.case for ladder in args.ladder):
        measure, pages, more = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            world = World(pathlib.Path(folder), binary, testbed, pages, ladder, more)
            try:
                with awake(PROXY_CORE, LOAD_CORE):
                    figures = results[f"{name} {ladder}"] = measure(world, args.rounds)
            finally:
                world.stop()
        print(f"{name:6} {ladder:8} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()), flush=True)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"load": os.getloadavg(), **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
