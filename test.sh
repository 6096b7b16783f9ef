#!/usr/bin/env bash
# Tests everything: format, lints, tests (doc tests included), docs, and the demo's story. Says what it does, how long
# each step took, and fails if any step failed. Later steps run even if an earlier one failed.
#
# Needs a C compiler (SQLite is built from source) and Rust by way of rustup. On Debian and its kin a missing one is
# installed with apt-get, if we are root or may use sudo without a password.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

say() { printf '%s\n' "$*"; }

# apt_install PACKAGE…: installs them, or says why not.
apt_install() {
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      say "missing: $*; install it as root, then run this again"
      return 1
    fi
    as_root=(sudo -n)
  fi
  if ! command -v apt-get >/dev/null; then
    say "missing: $*; there is no apt-get here, so install it your system's way"
    return 1
  fi
  say "missing: $*; installing it with apt-get"
  "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"
}

prepare() {
  # rustup may have been installed without a new shell since.
  [[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  command -v cc >/dev/null || apt_install gcc libc6-dev || return 1
  if ! command -v cargo >/dev/null; then
    apt_install rustup ca-certificates || {
      say "no Rust: install it from https://rustup.rs, then run this again"
      return 1
    }
  fi
  # Tests of `[cluster]` start servers of their own.
  command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null ||
    apt_install redis-server redis-sentinel || return 1
  # Tests give the web servers of docs/OPERATIONS.md their snippets.
  local servers=()
  [[ -x /usr/sbin/nginx ]] || servers+=(nginx-light)
  [[ -x /usr/sbin/haproxy ]] || servers+=(haproxy)
  [[ -x /usr/sbin/apache2 ]] || servers+=(apache2-bin)
  [[ ${#servers[@]} -eq 0 ]] || apt_install "${servers[@]}" || return 1
  # They stop and wake programs; the tutorial asks with curl.
  [[ -x /bin/kill ]] || apt_install procps || return 1
  command -v curl >/dev/null || apt_install curl || return 1
  # And wrong clocks.
  compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || apt_install libfaketime || return 1
  # With rustup this fetches the toolchain that rust-toolchain.toml names.
  cargo --version && cargo fmt --version && cargo clippy --version
}

names=() results=() times=()
failed=0

# step NAME COMMAND…
step() {
  local name=$1 start=$EPOCHREALTIME result=ok
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" || { result=FAILED; failed=1; }
  local end=$EPOCHREALTIME
  names+=("$name") results+=("$result") times+=($(((${end/[.,]/} - ${start/[.,]/}) / 100000)))
}

log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

tests() { cargo test --locked --workspace 2>&1 | tee "$log"; }
browser() {
  local missing=()
  [[ -x ${CHROMIUM:-/usr/bin/chromium} ]] || missing+=(chromium)
  command -v npm >/dev/null || missing+=(nodejs npm)
  command -v openssl >/dev/null || missing+=(openssl)
  [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
  [[ -x /usr/lib/iipimage-server/iipsrv.fcgi ]] || missing+=(iipimage-server)
  [[ ${#missing[@]} -eq 0 ]] || apt_install "${missing[@]}" || return 1
  tests/browser/run.sh
}
instructions() {
  command -v valgrind >/dev/null && command -v python3 >/dev/null || apt_install valgrind python3 || return 1
  python3 benches/instructions.py --dev
}
simulation() { HEAL_SIM_SEEDS=10000 cargo test --locked --lib heal::sim::ten_thousand_worlds -- --nocapture; }
docs() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps; }

prepare || exit 2
step format cargo fmt --all --check
step lints cargo clippy --locked --workspace --all-targets -- -D warnings
step tests tests
step simulation simulation
step instructions instructions
step docs docs
step demo cargo run --locked --example demo -- --once
step browser browser

printf '\n== summary\n'
for i in "${!names[@]}"; do
  printf '%-8s %-7s %4d.%d s\n' "${names[i]}" "${results[i]}" $((times[i] / 10)) $((times[i] % 10))
done
# A test that was left out is said so, by name.
sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$log" |
  awk '{ p += $1; f += $2; i += $3 } END { printf "tests    %d passed, %d failed, %d left out\n", p, f, i }'
sed -nE 's/^(test .* \.\.\. ignored.*)/left out: \1/p; s/.*(LEFT OUT: .*)/\1/p' "$log"
[[ $failed -eq 0 ]] && say "all well" || say "something failed"
exit "$failed"
