#!/usr/bin/env bash
# Sends the cases of tests/hostile/cases to iiif-mender, nginx and HAProxy, each before the same strict recorder, and
# prints for each case the answers and how many whole requests arrived. Needs the Debian packages nginx and haproxy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PATH:/usr/sbin
IIIF_MENDER_HOSTILE_COMPARE=1 exec cargo test --locked --test it hostile:: -- --nocapture
