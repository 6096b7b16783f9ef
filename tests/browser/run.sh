#!/usr/bin/env bash
# Browser tests in Debian's chromium: five viewers read expired books through the real iiif-mender, before the testbed's
# image server and before real ones; its dashboard.
#
#   tests/browser/run.sh            short journeys
#   FULL=1 tests/browser/run.sh     30 pages a viewer in both host modes
#   SHOTS=DIR tests/browser/run.sh  keeps screenshots
#
#   JOBS=1 tests/browser/run.sh     one file after the other
#
# Needs node 18, npm, openssl, chromium, nginx and IIPImage (Debian: apt-get install chromium nginx-light
# iipimage-server), and npm's registry for the viewers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
for program in node npm openssl "${CHROMIUM:-/usr/bin/chromium}" "${NGINX:-/usr/sbin/nginx}" /usr/lib/iipimage-server/iipsrv.fcgi; do
  command -v "$program" >/dev/null || { echo "missing: $program" >&2; exit 2; }
done
# What the tests build, so that it is not built once more with other features.
(cd ../.. && cargo build -q --locked --workspace --bins --tests)
npm ci --silent --no-audit --no-fund
# Once, before files that run at the same time ask for them.
node -e "import('./viewers/bundles.mjs').then(({ bundles }) => bundles())"
# Much of the time is waiting: for heals, for viewers to come to rest.
exec node --test --test-concurrency="${JOBS:-2}" viewers/*.test.mjs imageservers/*.test.mjs dashboard/*.test.mjs
