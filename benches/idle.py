#!/usr/bin/env python3
"""What an idle connection costs: opens many, asks one thing on each, and looks at the memory of the program.

    python3 benches/idle.py [--connections 10000] [--binary target/release/iiif-mender]

Needs nothing but Python and the program. The limit of open files is raised as far as it goes; what is left of the
connections is said.
"""
import argparse
import http.server
import pathlib
import resource
import socket
import subprocess
import tempfile
import threading
import time


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", "1024")
        self.end_headers()
        self.wfile.write(b"x" * 1024)

    def log_message(self, *_):
        pass


def resident(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit("the program has ended")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def ask(address):
    connection = socket.create_connection(address)
    connection.sendall(b"GET /iiif/2/x/full/100,/0/default.jpg HTTP/1.1\r\nHost: images.example.org\r\n\r\n")
    answer = b""
    while len(answer) < 1024 or len(answer.partition(b"\r\n\r\n")[2]) < 1024:
        more = connection.recv(65536)
        if not more:
            raise SystemExit(f"closed early: {answer[:200]!r}")
        answer += more
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    return connection


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--connections", type=int, default=10_000)
    options.add_argument("--binary", default="target/release/iiif-mender")
    told = options.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(told.connections, most - 100)
    if count < told.connections:
        print(f"only {count} connections: the hard limit of open files is {most} (ulimit -Hn)")
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        pathlib.Path(folder, "config.toml").write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\nmax_connections = {count + 100}\n'
            f"max_connections_per_address = 0\nidle_timeout = \"1h\"\n[admin]\nlisten = \"off\"\n"
            f'[log]\nfilter = "warn"\n[[routes]]\nprefix = "/iiif/2/"\nkind = "image"\n'
            f'upstream = "http://127.0.0.1:{origin.server_port}/iiif/2/"\n'
            f'[[routes]]\nprefix = "/iiif-service/"\nkind = "presentation"\n'
            f'upstream = "http://127.0.0.1:{origin.server_port}/iiif-service/"\n'
        )
        program = str(pathlib.Path(told.binary).resolve())
        with subprocess.Popen([program, "serve"], cwd=folder) as process:
            try:
                deadline = time.monotonic() + 20
                while True:
                    try:
                        ask(("127.0.0.1", port)).close()
                        break
                    except OSError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.05)
                before = resident(process)
                idle = [ask(("127.0.0.1", port)) for _ in range(count)]
                # Buffers that are let go after a while have been let go.
                time.sleep(6)
                after = resident(process)
                print(f"{len(idle)} idle connections: {before} KiB before, {after} KiB after, "
                      f"{(after - before) / len(idle):.1f} KiB each")
                ask(("127.0.0.1", port))
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
