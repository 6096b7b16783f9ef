#!/usr/bin/env bash
# The soak with Toxiproxy between iiif-mender and the image server: faults of the network beside those of the stand-ins, for
# SECONDS at RATE requests a second, on a release build. Needs Go, unless toxiproxy-server is installed.
# Usage: tests/faults/toxiproxy.sh [SECONDS] [RATE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; rm -rf "$folder"' EXIT
if ! server=$(command -v toxiproxy-server); then
  GOBIN=$folder go install github.com/Shopify/toxiproxy/v2/cmd/server@latest
  server=$folder/server
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$server" -host 127.0.0.1 -port "$port" >"$folder/log" 2>&1 &
started+=($!)
until curl -sf "http://127.0.0.1:$port/version" >/dev/null; do sleep 0.1; done
export IIIF_MENDER_TOXIPROXY=http://127.0.0.1:$port
tests/faults/soak.sh "${1:-300}" "${2:-500}"
