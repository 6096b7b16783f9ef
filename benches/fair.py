#!/usr/bin/env python3
"""What everybody else gets while somebody misbehaves: iiif-mender, nginx and HAProxy before the same stand-ins, side by side.

    python3 benches/fair.py [--seconds 10] [--attack NAME …] [--server NAME …] [--json FILE] [--binary FILE]

Builds iiif-mender and the testbed (release) unless told which --binary. Needs Python, nginx-light and haproxy; it installs
nothing. Every server is started anew for every attack, with as little configuration as forwarding takes; iiif-mender is as
shipped. Attackers come from 127.66.0.0/16 and come back when they are cut; the others are eight clients at 127.9.0.0/24 that
ask for tiles, info.json, manifests and plain answers, one after the other. An answer that is not there after --patience
seconds is an error. Memory is what is resident at most while the attack runs (VmRSS of all processes of the server).
"""
import argparse
import asyncio
import collections
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

GATEWAY, CONTROL, NGINX, HAPROXY, MENDER, ADMIN = 18180, 18181, 18182, 18183, 18184, 18185
H2 = 100  # Added to the port of nginx and HAProxy: HTTP/2 with prior knowledge.
IMAGES, SERVICE, PLAIN = "/iiif/2/sized-{size}-{n}/full/full/0/default.jpg", "/iiif-service/sized-{size}-{n}", "/plain/sized-{size}-{n}"
SMALL, LARGE = IMAGES.replace("{size}", "65536"), IMAGES.replace("{size}", "1048576")
STREAMS = 100
PAUSE, HOLD = 0.5, 60
EXPIRED = 400


# ---- Attackers. Each is a coroutine that never ends by itself.

def far_away(source):
    """A socket as of somebody far away: small segments, so that the kernel does not take a megabyte at once."""
    own = socket.socket()
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    own.setblocking(False)
    own.bind((source, 0))
    return own


def filled(path):
    return path.replace("{n}", f"{random.getrandbits(48)}")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(stream, method, path, length=None):
    text = path.encode()
    # Static table: GET or POST, http; literals without an index for path, authority and content-length.
    block = bytes([0x82 if method == "GET" else 0x83, 0x86, 0x04, len(text)]) + text + bytes([0x01, 1]) + b"h"
    if length is not None:
        told = str(length).encode()
        block += bytes([0x0f, 28 - 15, len(told)]) + told
    return frame(1, 5 if method == "GET" else 4, stream, block)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Streams:
    """One HTTP/2 connection after the other, with so many requests on it."""

    def __init__(self, source, port, path, count, window=0, pace=None, method="GET", length=None):
        self.source, self.port, self.path, self.count = source, port, path, count
        self.window, self.pace, self.method, self.length = window, pace, method, length

    async def run(self):
        while True:
            try:
                await self.connection()
            except (OSError, EOFError):
                pass
            await asyncio.sleep(PAUSE)

    async def connection(self):
        loop, own = asyncio.get_running_loop(), far_away(self.source)
        moves = None
        try:
            await loop.sock_connect(own, ("127.0.0.1", self.port))
            await loop.sock_sendall(own, PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, self.window)))
            live, ids = set(), iter(range(1, 1 << 30, 2))

            async def begin(many):
                said = b""
                for _ in range(many):
                    stream = next(ids)
                    live.add(stream)
                    said += headers(stream, self.method, filled(self.path), self.length)
                    if self.method == "POST":
                        said += frame(0, 0, stream, b"x")
                await loop.sock_sendall(own, said)

            async def move():
                while self.pace:
                    await asyncio.sleep(self.pace)
                    one = (lambda s: frame(0, 0, s, b"x")) if self.method == "POST" else (lambda s: frame(8, 0, s, struct.pack(">I", 1)))
                    await loop.sock_sendall(own, b"".join(map(one, live)))

            await begin(self.count)
            moves = asyncio.ensure_future(move())
            buffer, last = b"", time.monotonic()
            while True:
                more = await self.some(own)
                if more == b"":
                    raise EOFError
                buffer += more or b""
                while len(buffer) >= 9:
                    length = int.from_bytes(buffer[:3], "big")
                    if len(buffer) < 9 + length:
                        break
                    kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big")
                    payload, buffer = buffer[9:9 + length], buffer[9 + length:]
                    if kind == 4 and not flags & 1:
                        await loop.sock_sendall(own, frame(4, 1, 0))
                    elif kind == 6 and not flags & 1:
                        await loop.sock_sendall(own, frame(6, 1, 0, payload))
                    elif kind == 7:
                        raise EOFError
                    elif kind == 3 or kind in (0, 1) and flags & 1:
                        live.discard(stream)
                if len(live) < self.count and time.monotonic() - last > PAUSE:
                    last = time.monotonic()
                    await begin(self.count - len(live))
        finally:
            if moves:
                moves.cancel()
            own.close()

    @staticmethod
    async def some(own):
        """What came; None: nothing for a while."""
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(own, 65536), PAUSE)
        except TimeoutError:
            return None


async def reset(own):
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    own.close()


async def http1(source, port, path, pace=None, size=1, method="GET", length=None):
    """HTTP/1.1: reads nothing, or `size` bytes each `pace` seconds; or sends a body at that pace."""
    loop = asyncio.get_running_loop()
    body, byte = "", b"x"
    if method == "POST":
        byte = b"x" if length else b"1\r\nx\r\n"
        body = f"Content-Length: {length}\r\n" if length else "Transfer-Encoding: chunked\r\n"
    while True:
        own = far_away(source)
        try:
            await loop.sock_connect(own, ("127.0.0.1", port))
            said = f"{method} {filled(path)} HTTP/1.1\r\nHost: h\r\n{body}\r\n".encode()
            await loop.sock_sendall(own, said + (byte if method == "POST" else b""))
            if method == "POST":
                answered = asyncio.ensure_future(loop.sock_recv(own, 4096))
                while not answered.done():
                    await asyncio.wait([answered], timeout=pace or 60)
                    if not answered.done():
                        await loop.sock_sendall(own, byte)
            elif pace is None:
                await asyncio.sleep(HOLD)
            else:
                while await loop.sock_recv(own, size):
                    await asyncio.sleep(pace)
        except OSError:
            pass
        await reset(own)
        await asyncio.sleep(PAUSE)


async def leaves(source, port, path):
    loop = asyncio.get_running_loop()
    while True:
        own = far_away(source)
        try:
            await loop.sock_connect(own, ("127.0.0.1", port))
            await loop.sock_sendall(own, f"GET {filled(path)} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            await asyncio.sleep(0.001)
        except OSError:
            pass
        await reset(own)
        await asyncio.sleep(0.02)


async def resets(source, port, path):
    loop = asyncio.get_running_loop()
    while True:
        own = far_away(source)
        try:
            await loop.sock_connect(own, ("127.0.0.1", port))
            await loop.sock_sendall(own, PREFACE + frame(4, 0, 0))
            for first in range(1, 400, 100):
                group = range(first, first + 100, 2)
                await loop.sock_sendall(own, b"".join(headers(stream, "GET", filled(path)) for stream in group))
                await loop.sock_sendall(own, b"".join(frame(3, 0, stream, struct.pack(">I", 8)) for stream in group))
                # 2,500 a second at most: who takes whole cores is another matter.
                await asyncio.sleep(0.02)
        except OSError:
            pass
        await reset(own)
        await asyncio.sleep(0)


def client(number):
    return f"127.66.{number >> 8}.{number & 255}"


def streams(number, port, path, count, **how):
    return [Streams(client(number), port, path, min(STREAMS, count - first), **how).run() for first in range(0, count, STREAMS)]


def connections(number, port, path, count, **how):
    return [http1(client(number), port, path, **how) for _ in range(count)]


def mixed(one, two, _):
    return (streams(0, two, SMALL, 300) + streams(1, two, LARGE, 300, window=1, pace=1) + connections(2, one, LARGE, 300)
            + streams(3, two, "/iiif-service/u/{n}", 300, method="POST", length=5000) + [resets(client(4), two, SMALL)])


# name: (what it is, the attack as coroutines for the ports of HTTP/1.1 and HTTP/2 and the expired identifiers)
ATTACKS = {
    "none": ("nobody misbehaves", lambda one, two, _: []),
    "a-64k": ("one h2 client, window 0, 256 GETs of 64 KiB", lambda one, two, _: streams(0, two, SMALL, 256)),
    "a-1m": ("the same of 1 MiB", lambda one, two, _: streams(0, two, LARGE, 256)),
    "a-50": ("50 clients, window 0, 256 GETs of 64 KiB each", lambda one, two, _: sum((streams(n, two, SMALL, 256) for n in range(50)), [])),
    "a-byte": ("window 1, opened by a byte a second, 256 of 1 MiB", lambda one, two, _: streams(0, two, LARGE, 256, window=1, pace=1)),
    "b-h2": ("one h2 client, 256 POSTs to documents, a byte in 20 s",
             lambda one, two, _: streams(0, two, "/iiif-service/u/{n}", 256, method="POST", length=5000, pace=20)),
    "b-plain": ("the same to a plain route", lambda one, two, _: streams(0, two, "/plain/u/{n}", 256, method="POST", length=5000, pace=20)),
    "b-h1": ("300 HTTP/1.1 POSTs to documents", lambda one, two, _: connections(0, one, "/iiif-service/u/{n}", 300, method="POST", length=5000, pace=20)),
    "b-chunks": ("300 HTTP/1.1 POSTs in chunks, a byte a second", lambda one, two, _: connections(0, one, "/plain/u/{n}", 300, method="POST", pace=1)),
    "c-1m": ("300 connections of one address, 1 MiB unread", lambda one, two, _: connections(0, one, LARGE, 300)),
    "c-64k": ("the same of 64 KiB", lambda one, two, _: connections(0, one, SMALL, 300)),
    "c-byte": ("the same of 1 MiB, a byte a second", lambda one, two, _: connections(0, one, LARGE, 300, pace=1)),
    "c-slow": ("8 clients, 40 connections each, 1 MiB at 2 KiB a second",
               lambda one, two, _: sum((connections(n, one, LARGE, 40, pace=0.25, size=512) for n in range(8)), [])),
    "d": ("400 expired images with 404s of 150 KB, unread",
          lambda one, two, lost: [http1(client(n % 8), one, f"/iiif/2/{name}/full/64,/0/default.jpg") for n, name in enumerate(lost)]),
    "documents": ("300 documents of 2 MB, unread",
                  lambda one, two, _: connections(0, one, SERVICE.replace("{size}", "2000000"), 150)
                  + streams(1, two, SERVICE.replace("{size}", "2000000"), 150)),
    "resets": ("one h2 client that takes all requests back", lambda one, two, _: [resets(client(0), two, SMALL)]),
    "leaves": ("20 connections that ask and leave", lambda one, two, _: [leaves(client(0), one, SMALL) for _ in range(20)]),
    "mixed": ("several of these at once", mixed),
}


def attack(name, one, two, lost):
    """The process of the attackers; it is killed in the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def all_of_them():
        await asyncio.gather(*ATTACKS[name][1](one, two, lost))

    asyncio.run(all_of_them())


# ---- Everybody else.

async def ask(reader, writer, path):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
    status = int(head.split(" ")[1])
    if "transfer-encoding: chunked" in head.lower():
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            await reader.readexactly(size + 2)
            if size == 0:
                break
    else:
        await reader.readexactly(int(re.search(r"(?i)content-length: (\d+)", head)[1]))
    return status


async def honest(number, port, paths, until, patience, seen):
    reader = writer = None
    for turn in range(1 << 30):
        if time.monotonic() > until:
            break
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.9.0.{number}", 0))
                status = await ask(reader, writer, paths[(number + turn) % len(paths)])
        except (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError):
            status = 0
        seen.append((time.monotonic() - began, status))
        if status != 200 and writer is not None:
            writer.close()
            writer = None
        await asyncio.sleep(0.02)
    if writer is not None:
        writer.close()


def tree(pid):
    yield pid
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))
    except FileNotFoundError:
        pass


def resident_mib(pid):
    total = 0
    for process in tree(pid):
        try:
            found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())
            total += int(found[1]) if found else 0
        except FileNotFoundError:
            pass
    return total / 1024


async def measure(port, pid, paths, seconds, patience):
    seen, peak, until = [], 0, time.monotonic() + seconds
    clients = [asyncio.ensure_future(honest(n, port, paths, until, patience, seen)) for n in range(1, 9)]
    while not all(one.done() for one in clients):
        peak = max(peak, resident_mib(pid))
        await asyncio.sleep(0.1)
    await asyncio.gather(*clients)
    return seen, peak


# ---- The servers.

def nginx(folder):
    (folder / "nginx.conf").write_text(f"""
worker_processes auto; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream origin {{ server 127.0.0.1:{GATEWAY}; keepalive 64; }}
  server {{ listen 127.0.0.1:{NGINX}; listen 127.0.0.1:{NGINX + H2} http2;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }} }}
}}""")
    return ["nginx", "-c", str(folder / "nginx.conf")], NGINX, NGINX + H2


def haproxy(folder):
    (folder / "haproxy.cfg").write_text(f"""
global
  maxconn 8192
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 75s
  timeout server 60s
frontend viewers
  bind 127.0.0.1:{HAPROXY}
  bind 127.0.0.1:{HAPROXY + H2} proto h2
  default_backend origin
backend origin
  server origin 127.0.0.1:{GATEWAY}
""")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], HAPROXY, HAPROXY + H2


def mender(folder, binary):
    routes = "".join(f'[[routes]]\nprefix = "{path}"\nupstream = "http://127.0.0.1:{GATEWAY}{path}"\nkind = "{kind}"\n'
                     for path, kind in (("/iiif/2/", "image"), ("/iiif-service/", "presentation"), ("/", "plain")))
    (folder / "mender.toml").write_text(f"""
[server]
listen = "127.0.0.1:{MENDER}"
public_hosts = ["api.library.tamu.edu"]
[admin]
listen = "127.0.0.1:{ADMIN}"
{routes}
[[index.sources]]
path = "manifests/"
[log]
filter = "info,iiif_mender::proxy=warn"
""")
    command = [binary, "--config", str(folder / "mender.toml")]
    subprocess.run([*command, "index", "build"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [*command, "serve"], MENDER, MENDER


def start(command, port, folder):
    log = open(folder / "output.log", "ab")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit(f"{command[0]} does not serve port {port}:\n{(folder / 'output.log').read_text()[-2000:]}")
            time.sleep(0.05)


def stop(process):
    process.send_signal(signal.SIGKILL if process.args[0] != "nginx" else signal.SIGTERM)
    process.wait(40)


def control(switch):
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{CONTROL}/{switch}", method="POST")).read()


def one_run(name, server, command, one, two, folder, pages, args):
    lost = [page["identifier"] for page in pages if "expired" in page["manifest"]]
    process = start(command, one, folder)
    attacker = None
    try:
        time.sleep(0.5)
        # Manifests and canvases are built before, so that only the attack is measured.
        control("register")
        if name == "d":
            for identifier in lost:
                control(f"expire?{identifier}")
        paths = []
        for page in pages[:5]:
            paths += [f"/iiif/2/{page['identifier']}/0,0,256,256/64,/0/default.jpg", f"/iiif/2/{page['identifier']}/info.json",
                      page["manifest"], "/plain/x"]
        for path in set(paths):
            urllib.request.urlopen(f"http://127.0.0.1:{one}{path}").read()
        attacker = multiprocessing.Process(target=attack, args=(name, one, two, lost), daemon=True)
        attacker.start()
        # So many at once are work by themselves, for the attackers first of all.
        time.sleep(8 if name == "a-50" else 1)
        seen, peak = asyncio.run(measure(one, process.pid, paths, args.seconds, args.patience))
    finally:
        if attacker:
            attacker.kill()
            attacker.join()
        stop(process)
    times = sorted(took for took, _ in seen)
    statuses = collections.Counter(status for _, status in seen)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
    found = {"requests": len(times), "p50_ms": statistics.median(times) * 1000, "p99_ms": at(0.99) * 1000, "most_ms": times[-1] * 1000,
             "503": statuses[503], "errors": sum(many for status, many in statuses.items() if status not in (200, 503)), "peak_mib": peak}
    print(f"{name:10} {server:12} {found['requests']:6} {found['p50_ms']:9.1f} {found['p99_ms']:9.1f} {found['most_ms']:9.1f} "
          f"{found['503']:5} {found['errors']:6} {found['peak_mib']:8.1f}", flush=True)
    return found


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seconds", type=float, default=10)
    words.add_argument("--patience", type=float, default=15)
    words.add_argument("--attack", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    words.add_argument("--server", nargs="+", choices=["nginx", "haproxy", "iiif-mender"], default=["nginx", "haproxy", "iiif-mender"])
    words.add_argument("--json", type=pathlib.Path, default=pathlib.Path("target/fair.json"))
    words.add_argument("--binary")
    args = words.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [tool for tool in ("nginx", "haproxy") if tool in args.server and not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: {' '.join(missing)} (apt-get install --no-install-recommends nginx-light haproxy)")
    root = pathlib.Path(__file__).resolve().parent.parent
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "iiif-mender-testbed"], cwd=root, check=True)
    if not args.binary:
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "iiif-mender"], cwd=root, check=True)
    binary = str(pathlib.Path(args.binary or root / "target/release/iiif-mender").resolve())
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    results = {}
    bed = start([str(root / "target/release/iiif-mender-testbed"), "--page-size", "600:800", "--book", "obj/book:5",
                 "--book", f"obj/expired:{EXPIRED}", "--manifests", str(folder / "manifests"), "--error-bytes", "150000",
                 "--gateway", f"127.0.0.1:{GATEWAY}", "--control", f"127.0.0.1:{CONTROL}"], CONTROL, folder)
    try:
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{CONTROL}/"))["pages"]
        makers = {"nginx": nginx, "haproxy": haproxy, "iiif-mender": lambda own: mender(own, binary)}
        servers = {name: makers[name](folder) for name in args.server}
        print(f"load average {os.getloadavg()[0]:.1f}; {args.seconds:.0f} s each\n\n"
              f"{'attack':10} {'server':12} {'others':>6} {'p50 ms':>9} {'p99 ms':>9} {'most ms':>9} {'503':>5} {'errors':>6} {'peak MiB':>8}", flush=True)
        for name in args.attack:
            print(f"-- {ATTACKS[name][0]}", flush=True)
            results[name] = {server: one_run(name, server, *servers[server], folder, pages, args) for server in servers}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
        print(f"\nload average {os.getloadavg()[0]:.1f}; all figures in {args.json}")
    finally:
        bed.kill()
        bed.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
