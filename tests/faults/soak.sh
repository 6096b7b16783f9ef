#!/usr/bin/env bash
# Mixed traffic, lost images, faults, hostile bytes and viewers who leave, for SECONDS at RATE requests a second, on a
# release build: no wrong byte, no hang, memory, descriptors and threads flat, all gauges back to zero.
# Usage: tests/faults/soak.sh [SECONDS] [RATE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --locked --release --bin iiif-mender
export IIIF_MENDER_TEST_BINARY=$PWD/target/release/iiif-mender
export IIIF_MENDER_SOAK_SECONDS=${1:-1800} IIIF_MENDER_SOAK_RATE=${2:-150}
exec cargo test --locked --test it soak:: -- --nocapture
