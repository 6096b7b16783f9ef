#!/usr/bin/env bash
# Tests the whole project. Prints each step, its time and its result; later steps run even if an earlier one failed.
#
#   ./test.sh              all that continuous integration runs, about 25 minutes on two cores
#   ./test.sh quick        format, lints, tests without browsers and other servers, docs, about 10 minutes
#   ./test.sh --yes        installs what is missing without asking (so does a run without a terminal)
#   ./test.sh --list       prints what is missing, and installs nothing
#
# Needs a C compiler (SQLite is built from source) and Rust by way of rustup, for the whole run also the servers and
# tools of `needs` below, 12 GB in target/ and 3 GB of memory. What is missing on Debian and its kin is installed with
# apt-get, if we are root or may use sudo. Services that come with a package are never started.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

say() { printf '%s\n' "$*"; }

mode=all yes=no list=no
for argument; do
  case $argument in
    quick) mode=quick ;;
    --yes) yes=yes ;;
    --list) list=yes ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
[[ -t 0 ]] || yes=yes

# What is looked for, the packages that bring it, and what it is for. A path may be a pattern.
needs() {
  cat <<'LIST'
cc                                       | gcc libc6-dev           | SQLite and ring are built from source
cargo                                    | rustup ca-certificates  | the compiler
/bin/kill                                | procps                  | tests stop and wake programs
curl                                     | curl                    | the tutorial asks with it
LIST
  [[ $mode == quick ]] || cat <<'LIST'
redis-server                             | redis-server            | tests of [cluster] start servers of their own
redis-sentinel                           | redis-sentinel          | the same
/usr/sbin/nginx                          | nginx-light             | the snippets of docs/OPERATIONS.md
/usr/sbin/haproxy                        | haproxy                 | the same
/usr/sbin/apache2                        | apache2-bin             | the same
/usr/lib/*/faketime/libfaketime.so.1     | libfaketime             | tests with wrong clocks
valgrind                                 | valgrind                | instructions of a request
python3                                  | python3                 | the same
/usr/bin/chromium                        | chromium                | viewers and the dashboard in a browser
npm                                      | nodejs npm              | the same
openssl                                  | openssl                 | the same
/usr/lib/iipimage-server/iipsrv.fcgi     | iipimage-server         | an image server of somebody else
LIST
}

# Prints the packages that are missing, and on the standard error what each is for.
missing() {
  local what packages why
  while IFS='|' read -r what packages why; do
    what=${what%% *}
    packages=$(xargs <<<"$packages")
    [[ $what != /usr/bin/chromium || -z ${CHROMIUM:-} ]] || continue
    if [[ $what == /* ]]; then compgen -G "$what" >/dev/null && continue; else command -v "$what" >/dev/null && continue; fi
    printf '  %-24s%s\n' "$packages" "$why" >&2
    printf '%s\n' "$packages"
  done < <(needs)
}

# apt_install PACKAGE…: installs them, or says why not.
apt_install() {
  local as_root=() policy=/usr/sbin/policy-rc.d status
  if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
      say "install these as root, then run this again"
      return 1
    fi
    as_root=(sudo)
  fi
  if ! command -v apt-get >/dev/null; then
    say "there is no apt-get here: install these your system's way, then run this again"
    return 1
  fi
  # Debian asks this file whether a service that was just installed may start: it may not.
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
  else
    policy=
  fi
  "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"
  status=$?
  [[ -z $policy ]] || "${as_root[@]}" rm -f "$policy"
  return "$status"
}

prepare() {
  # rustup may have been installed without a new shell since.
  [[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  local packages answer
  packages=$(missing 2>"$log")
  if [[ -n $packages ]]; then
    say "missing:"
    cat "$log"
    [[ $list == no ]] || return 1
    if [[ $yes == no ]]; then
      read -rp 'Install them with apt-get? No service is started. [y/N] ' answer
      [[ $answer == [yY]* ]] || return 1
    fi
    # shellcheck disable=SC2086  # one word for each package
    apt_install $packages || return 1
  elif [[ $list == yes ]]; then
    say "nothing is missing"
    exit 0
  fi
  if ! command -v cargo >/dev/null; then
    say "no Rust: install it from https://rustup.rs, then run this again"
    return 1
  fi
  # With rustup this fetches the toolchain that rust-toolchain.toml names.
  cargo --version && cargo fmt --version && cargo clippy --version
}

names=() results=() times=()
failed=0

# step NAME COMMAND…
step() {
  local name=$1 start=$EPOCHREALTIME result=ok
  if [[ " ${long[*]} " == *" $name "* ]]; then
    say "LEFT OUT: the step $name (./test.sh runs it)" >>"$log"
    return
  fi
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" || { result=FAILED; failed=1; }
  local end=$EPOCHREALTIME
  names+=("$name") results+=("$result") times+=($(((${end/[.,]/} - ${start/[.,]/}) / 100000)))
}

log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

# What `quick` leaves out: steps, and suites that start servers of somebody else (Redis, nginx, HAProxy, Apache).
long=() others=()
if [[ $mode == quick ]]; then
  long=(simulation instructions demo browser)
  others=(cluster_ batch_jobs:: reverse_proxies:: healing_missing::a_plain_)
fi

tests() {
  local skip=() suite
  for suite in "${others[@]}"; do
    skip+=(--skip "$suite")
    say "LEFT OUT: $suite (it needs servers: ./test.sh runs it)" >>"$log"
  done
  cargo test --locked --workspace -- "${skip[@]}" 2>&1 | tee -a "$log"
}
simulation() { HEAL_SIM_SEEDS=10000 cargo test --locked --lib heal::sim::ten_thousand_worlds -- --nocapture; }
instructions() { python3 benches/instructions.py --dev; }
docs() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps; }
browser() { tests/browser/run.sh; }

prepare || exit 2
: >"$log"
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
  printf '%-12s %-7s %4d.%d s\n' "${names[i]}" "${results[i]}" $((times[i] / 10)) $((times[i] % 10))
done
# A test that was left out is said so, by name: those that are marked, and those that found that they cannot run here.
left_out=$(sed -nE 's/^(test .* \.\.\. ignored.*)/\1/p; s/.*(LEFT OUT: .*)/\1/p' "$log")
sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed; .*/\1 \2/p' "$log" |
  awk -v left="$(grep -c . <<<"$left_out")" \
    '{ p += $1; f += $2 } END { printf "%-12s %d passed, %d failed, %d left out\n", "tests", p, f, left }'
[[ -z $left_out ]] || say "$left_out"
[[ $failed -eq 0 ]] && say "all well" || say "something failed"
exit "$failed"
