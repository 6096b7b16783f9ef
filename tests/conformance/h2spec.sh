#!/usr/bin/env bash
# h2spec against iiif-mender: HTTP/2 by prior knowledge. Every case passes.
# Needs Go, and python3 for an upstream. Usage: tests/conformance/h2spec.sh [BINARY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
binary=${1:-target/debug/iiif-mender}
[[ -x $binary ]] || cargo build --locked --bin iiif-mender
binary=$(realpath "$binary")
folder=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; rm -rf "$folder"' EXIT
if ! command -v h2spec >/dev/null; then
  GOBIN=$folder/bin go install github.com/summerwind/h2spec/cmd/h2spec@latest
  PATH=$folder/bin:$PATH
fi
cat >"$folder/origin.py" <<'PYTHON'
import http.server, sys
class Ok(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        self.send_response(200); self.send_header("content-length", "100"); self.end_headers()
        if self.command != "HEAD": self.wfile.write(b"x" * 100)
    do_POST = do_HEAD = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ok)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
python3 "$folder/origin.py" >"$folder/port" &
started+=($!)
until [[ -s $folder/port ]]; do sleep 0.1; done
cat >"$folder/config.toml" <<CONFIG
server.listen = "127.0.0.1:0"
admin.listen = "off"
log.format = "json"
[[routes]]
prefix = "/"
upstream = "http://127.0.0.1:$(cat "$folder/port")/"
CONFIG
(cd "$folder" && exec "$binary" serve) 2>"$folder/log" &
started+=($!)
until grep -q '"serving' "$folder/log"; do sleep 0.1; done
port=$(grep -m1 '"serving' "$folder/log" | sed -E 's/.*"address":"[^"]*:([0-9]+)".*/\1/')
h2spec -h 127.0.0.1 -p "$port" --timeout 5 | tee "$folder/report" || true
grep -E '^[0-9]+ tests' "$folder/report"
failed=$(sed -nE 's/.* ([0-9]+) failed.*/\1/p' "$folder/report" | tail -1)
[[ ${failed:-999} -eq 0 ]]
