#!/usr/bin/env bash
# Makes FILE for -Cprofile-use: where the program spends its time under the loads of benches/compare.py and benches/heals.py.
# With it a request costs nearly a third fewer instructions (docs/decisions/0004-the-data-path.md).
#
#   deploy/profile.sh FILE [TARGET]        TARGET: rustc's; this machine's if it is not given
#   RUSTFLAGS=-Cprofile-use=FILE cargo build --locked --release --target TARGET
#
# --target, RUSTFLAGS (but for -Cprofile-use) and CARGO_PROFILE_* of the later build must be those of now: they are in the names of
# functions, and what the profile calls otherwise is built without it. It fits the sources it was made from.
# Needs: rustup component add llvm-tools; what the two benches name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
file=$(realpath -m "$1")
host=$(rustc -vV | sed -n 's/^host: //p')
target=${2:-$host}
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[[ -x $profdata ]] || { echo "missing: rustup component add llvm-tools" >&2; exit 1; }

counts=$PWD/target/profile/counts
rm -rf "$counts"
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$counts" \
  cargo build --locked --release --target "$target" --target-dir target/profile --bin iiif-mender
binary=target/profile/$target/release/iiif-mender
python3 benches/compare.py --binary "$binary" --rounds 1 --seconds 3 --images 20000 --json target/profile/compare.json \
  --case 1k 32k 1m 404 1k-tls 1k-h2
cargo build --locked --release -p iiif-mender-testbed
python3 benches/heals.py --binary "$binary" --testbed target/release/iiif-mender-testbed --rounds 2 --case cold burst
"$profdata" merge -o "$file" "$counts"
