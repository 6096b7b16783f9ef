#!/usr/bin/env bash
# Browser tests in Debian's chromium: five viewers read expired books through the real iiif-mender; its dashboard.
#
#   tests/browser/run.sh            short journeys
#   FULL=1 tests/browser/run.sh     30 pages a viewer in both host modes
#   SHOTS=DIR tests/browser/run.sh  keeps screenshots
#
# Needs node 20, npm, openssl and chromium (Debian: apt-get install chromium), and npm's registry for the viewers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
for program in node npm openssl "${CHROMIUM:-/usr/bin/chromium}"; do
  command -v "$program" >/dev/null || { echo "missing: $program" >&2; exit 2; }
done
(cd ../.. && cargo build -q --locked --bin iiif-mender && cargo build -q --locked -p iiif-mender-testbed)
npm ci --silent --no-audit --no-fund
exec node --test viewers/ dashboard/
