#!/usr/bin/env python3
"""Instructions of the real binary, counted by valgrind: a guard against slow decay that does not mind a busy machine.

    python3 benches/instructions.py [--dev] [--binary FILE]    compare with benches/instructions.json; fails above 5 %
    python3 benches/instructions.py … --write [--reason TEXT]  write what is measured; more than 5 % needs a reason

It builds a release; with --dev what the tests build anyway, which has figures of its own: they are larger, and grow by
the same mistakes. Needs valgrind. One `serve` runs in it on one thread; between two marks a case is asked for so many times over one
connection, and the count between the marks is divided by that. The origin runs in this program and is not counted.

    image      a healthy image of 1 KiB: route, header rules, pool, reply
    unknown    a 404 that no index knows, another identifier each time: the same and an index lookup
    rewriting  a manifest of 100 canvases, under another public host
    walk       `index build` over the same manifest, 20 times: the walk, and what SQLite does (per manifest)
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

from compare import cpu_us

BASELINE = pathlib.Path(__file__).with_suffix(".json")
BASE = "https://api.library.tamu.edu"
ALLOWED = 1.05


def manifest(book):
    images = [f"{BASE}/iiif/2/{uuid.UUID(int=book * 100 + page)}" for page in range(100)]
    canvases = [{
        "@id": f"{BASE}/iiif-service/fedora/canvas/book-{book}/pages/{page}", "@type": "sc:Canvas",
        "images": [{"@type": "oa:Annotation", "motivation": "sc:painting", "resource": {
            "@id": f"{image}/full/full/0/default.jpg", "@type": "dctypes:Image", "service": {
                "@context": "http://iiif.io/api/image/2/context.json", "@id": image}}}]}
        for page, image in enumerate(images)]
    return json.dumps({"@context": "http://iiif.io/api/presentation/2/context.json", "@type": "sc:Manifest",
                       "@id": f"{BASE}/iiif-service/fedora/presentation/book-{book}",
                       "sequences": [{"canvases": canvases}]}).encode()


def answer(status, kind, body):
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


ANSWERS = [("/presentation/", answer("200 OK", "application/json", manifest(0))),
           ("/unknown", answer("404 Not Found", "text/plain", b"gone")),
           ("/iiif/2/", answer("200 OK", "image/jpeg", b"x" * 1024))]


GONE = answer("404 Not Found", "text/plain", b"gone")


def origin(listener):
    def serve(connection):
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                while lines.readline() not in (b"\r\n", b""):
                    pass
                connection.sendall(next((text for part, text in ANSWERS if part in line.decode()), GONE))

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def ask(connection, lines, path):
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: a.example\r\naccept: image/*\r\nuser-agent: guard\r\n\r\n".encode())
    length = chunked = 0
    while (line := lines.readline().lower()) not in (b"\r\n", b""):
        length = int(line.split(b":")[1]) if line.startswith(b"content-length:") else length
        chunked = chunked or line.startswith(b"transfer-encoding:")
    while chunked and (size := int(lines.readline(), 16) + 2) > 2:
        lines.read(size)
    lines.read(2 if chunked else length)


def total(file):
    return int(re.search(r"^(?:totals|summary): (\d+)", file.read_text(errors="replace"), re.M)[1])


def valgrind(folder, name, command):
    return ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/{name}.out", *command]


def config(folder, images, port):
    (folder / "config.toml").write_text(f"""
[server]
listen = "127.0.0.1:{port}"
public_hosts = ["api.library.tamu.edu"]
workers = 1
[admin]
listen = "off"
setup_check = "0s"
[[routes]]
prefix = "/iiif/2/"
upstream = "http://127.0.0.1:{images}/iiif/2/"
kind = "image"
[[routes]]
prefix = "/iiif-service/"
upstream = "http://127.0.0.1:{images}/iiif-service/"
kind = "presentation"
[rewrite]
public_url = "https://images.example.org"
[[index.sources]]
path = "manifests/"
[log]
filter = "warn"
""")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measured(binary, folder, fewer):
    (folder / "manifests").mkdir()
    for book in range(20):
        (folder / "manifests" / f"{book}.json").write_bytes(manifest(book))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=origin, args=(listener,), daemon=True).start()
    port = free_port()
    config(folder, listener.getsockname()[1], port)
    command = [binary, "--config", str(folder / "config.toml")]
    subprocess.run(valgrind(folder, "walk", [*command, "index", "build"]), check=True, stdout=subprocess.DEVNULL)
    figures = {"walk": total(folder / "walk.out") // 20}
    serve = subprocess.Popen(valgrind(folder, "serve", [*command, "serve"]), stderr=subprocess.DEVNULL)
    try:
        connection = connected(port)
        wait_until_idle(serve.pid)
        lines = connection.makefile("rb")
        paths = {
            "image": (1000 // fewer, lambda n: f"/iiif/2/{uuid.UUID(int=n)}/full/100,/0/default.jpg"),
            "unknown": (1000 // fewer, lambda n: f"/iiif/2/unknown-{n}/full/100,/0/default.jpg"),
            "rewriting": (30 // fewer, lambda n: "/iiif-service/fedora/presentation/book-0"),
        }
        for number, (case, (times, path)) in enumerate(paths.items()):
            for warm in range(-20, 0):
                ask(connection, lines, path(warm % 1000))
            control = ["callgrind_control", str(serve.pid)]
            subprocess.run([control[0], "-z", control[1]], check=True, capture_output=True)
            for at in range(times):
                ask(connection, lines, path(at + 1000))
            subprocess.run([control[0], f"--dump={case}", control[1]], check=True, capture_output=True)
            figures[case] = total(folder / f"serve.out.{number + 1}") // times
    finally:
        serve.terminate()
        serve.wait(60)
    return figures


def connected(port):
    deadline = time.monotonic() + 90
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("it does not start in valgrind")
            time.sleep(0.2)


def wait_until_idle(pid):
    """Waits until start-up work is done: the filter of the index is filled from a second after the start on."""
    deadline = time.monotonic() + 60
    before, now = -math.inf, cpu_us(pid)
    while now - before > 100_000:
        if time.monotonic() > deadline:
            sys.exit("it is never idle")
        time.sleep(3)
        before, now = now, cpu_us(pid)


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--binary")
    words.add_argument("--dev", action="store_true")
    words.add_argument("--write", action="store_true")
    words.add_argument("--reason", default="")
    args = words.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("missing: apt-get install --no-install-recommends valgrind")
    root = BASELINE.parent.parent
    profile, place = ("dev", "debug") if args.dev else ("release", "release")
    # The tests' build has features of its own: without `--tests`, 47 crates would be built once more.
    built = ["--workspace", "--bins", "--tests"] if args.dev else ["--release", "--bin", "iiif-mender"]
    if not args.binary:
        subprocess.run(["cargo", "build", "--locked", *built], cwd=root, check=True)
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.abspath(args.binary or root / os.environ.get("CARGO_TARGET_DIR", "target") / place / "iiif-mender")
        figures = measured(binary, pathlib.Path(folder), 5 if args.dev else 1)
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    baseline = known.get(profile, {})
    slower = []
    for case, count in figures.items():
        before = baseline.get(case, {}).get("instructions", count)
        print(f"{case:10} {count:>12,} instructions, {100 * count / before - 100:+.1f} % against {before:,}")
        if count > before * ALLOWED:
            slower.append(case)
    if args.write:
        if slower and not args.reason:
            sys.exit(f"{', '.join(slower)}: more than 5 % slower; say why with --reason")
        kept = {case: args.reason if case in slower else baseline.get(case, {}).get("reason", "") for case in figures}
        known[profile] = {case: {"instructions": count, "reason": kept[case]} for case, count in figures.items()}
        BASELINE.write_text(json.dumps(known, indent=1) + "\n")
    elif slower:
        sys.exit(f"{', '.join(slower)}: more than 5 % slower. Make it faster, or: "
                 f"benches/instructions.py {'--dev ' * args.dev}--write --reason …")


if __name__ == "__main__":
    main()
